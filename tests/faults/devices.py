"""A state that was spread over some devices, on others."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlstm.train.checkpoints import Checkpoints
from tests.faults.harness import Failure, Outcome, ended, expect, start

MESHES = {"1": (1, 1), "2": (2, 1), "8": (8, 1), "2x4": (2, 4)}


def other(folder: Path) -> Outcome:
    """From each number of devices to each: bit for bit, and where it was asked to be."""
    folder.mkdir(parents=True)
    pairs = list(itertools.product(MESHES, MESHES))
    out = folder / "out.txt"
    code = ended(start(_all_pairs, folder, pairs, out=out))
    passed = out.read_text().count("bit for bit")
    detail = "" if code == 0 else out.read_text()[-600:]
    return Outcome("another device count on restore", len(pairs), passed, detail)


def _all_pairs(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """In a process of its own, as it has eight devices."""
    jax.config.update("jax_num_cpu_devices", 8)
    for before, after in pairs:
        state = jax.tree.map(jax.device_put, _state(), _shardings(before))
        expected = jax.tree.map(_bytes, state)
        with Checkpoints(folder / f"{before}-{after}", asynchronous=False) as store:
            store.save(1, state)
            found = store.restore(jax.eval_shape(_state)).state
        placed = jax.tree.map(jax.device_put, found, _shardings(after))
        if jax.tree.map(_bytes, placed) != expected:
            raise Failure(f"{before} -> {after}: another value")
        sharded = placed["carry"].sharding
        expect(sharded == _shardings(after)["carry"], before, after, "not where it was asked to be")
        print(f"{before} -> {after}: bit for bit", flush=True)


def _state():
    carry = jax.random.normal(jax.random.key(0), (16, 8))
    return {
        "params": carry.T @ carry,
        "half": carry.astype(jnp.bfloat16),
        "carry": carry,
        "key": jax.random.key(3),
        "step": jnp.int32(7),
    }


def _shardings(name: str):
    rows, columns = MESHES[name]
    devices = np.array(jax.devices()[: rows * columns]).reshape(rows, columns)
    mesh = Mesh(devices, ("data", "hidden"))
    specs = {"params": P(None, "hidden"), "half": P("data"), "carry": P("data", "hidden")}
    return {name: NamedSharding(mesh, specs.get(name, P())) for name in _state()}


def _bytes(array):
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    array = np.asarray(jax.random.key_data(array) if is_key else array)
    return array.dtype, array.shape, array.tobytes()
