"""Double precision, two CPU devices, and a compiler told to be fast rather than its code."""

import functools
import gc
import itertools
import os
from importlib.metadata import version
from pathlib import Path

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
FLAGS += " --xla_llvm_disable_expensive_passes=true"
if version("jaxlib").startswith("0.10"):  # later ones know no such flag
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)

import jax  # noqa: E402  once XLA has its flags
import pytest  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_compilation_cache", False)
jax.config.update("jax_include_full_tracebacks_in_locations", False)
# One for every program, not one for each, which JAX keeps: a fifth of the time, half the memory.
mlir.make_ir_context = functools.cache(mlir.make_ir_context)

gc.set_threshold(100_000, 50, 100)  # JAX makes many objects that stay, and few cycles

MAPS = Path("/proc/self/maps")  # where there is none, there is no limit to run into
MOST = 50_000  # Linux gives a process 65,530; each compiled program takes a few
tests = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A file's tests go to one process, which compiles what they have in common once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))


def pytest_runtest_teardown():
    if next(tests) % 20 == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST:
        jax.clear_caches()
