"""Two sound checkpoints to be spoiled, and the values that they must give back."""

import functools
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.train.checkpoints import Checkpoints
from tests.faults.harness import expect

IDENTITY = {"config": {"hidden": 12, "rate": 0.5}, "text": "ab" * 32}
SETTING = {"devices": 1}


class State(NamedTuple):
    params: dict
    step: np.ndarray
    key: jax.Array
    empty: np.ndarray
    zeros: np.ndarray


def state(step: int) -> State:
    """Another one for each step: leaves of many dtypes, one of 40 KB, one of none."""
    rng = np.random.default_rng(step)
    params = {
        "w": rng.normal(size=(5, 7)).astype(np.float32),
        "half": rng.normal(size=3).astype(jnp.bfloat16),
        "big": rng.normal(size=(100, 100)).astype(np.float32),
        "mask": rng.random(6) < 0.5,
    }
    zeros = np.zeros(2500, np.int32)
    zeros[-1] = step
    return State(
        params, np.asarray(step, np.int64), jax.random.key(step), np.zeros((0, 3), np.int8), zeros
    )


@functools.cache
def like() -> State:
    return state(0)


def filled(folder: Path, *steps: int, identity=IDENTITY, setting=SETTING, **options: Any) -> Path:
    """A folder of checkpoints."""
    with store(folder, identity, setting, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step), {"epoch": step}, score=1.0 / step)
    return folder


def store(folder: Path, identity=IDENTITY, setting=SETTING, **options: Any) -> Checkpoints:
    return Checkpoints(folder, identity=identity, setting=setting, asynchronous=False, **options)


def expect_same(found: Any, step: int) -> None:
    """Failure unless the state is that of the step, bit for bit; no hash has a part in it."""
    expect_equal(found, state(step), f"state of step {step}")


def expect_equal(found: Any, made: Any, what: str) -> None:
    expect(jax.tree.structure(found) == jax.tree.structure(made), what, "has another structure")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(made), strict=True):
        expect(_bits(a) == _bits(b), what, "is another:", a, "is not", b)


def _bits(leaf: Any) -> tuple[str, str, tuple[int, ...], bytes]:
    implementation = ""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf, implementation = jax.random.key_data(leaf), str(jax.random.key_impl(leaf))
    leaf = np.asarray(leaf)
    return implementation, str(leaf.dtype), leaf.shape, leaf.tobytes()


def renew(folder: Path, template: Path) -> Path:
    """The template's copy in the folder, which holds nothing else then."""
    clear(folder)
    return Path(shutil.copytree(template, folder, symlinks=True))


def clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def content(folder: Path) -> dict[str, Any]:
    """Every file in a folder by its path: its bytes, where a link leads, or what else it is."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        kind: Any = "folder" if path.is_dir() else f"mode {path.lstat().st_mode:o}"
        if path.is_symlink():
            kind = os.readlink(path)
        elif path.is_file():
            kind = path.read_bytes()
        found[str(path.relative_to(folder))] = kind
    return found
