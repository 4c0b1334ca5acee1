"""Double precision, two CPU devices, and a compiler told to be fast rather than its code."""

import os
from importlib.metadata import version

FLAGS = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10"):  # later ones know no such flag
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)

import jax  # noqa: E402  once XLA has its flags

from jaxlstm.kernels import blocked  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)
blocked.UNROLL = 1  # copies of a step to compile; tests/test_kernels.py has four, as users do
