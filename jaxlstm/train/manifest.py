"""What a checkpoint says of itself: `manifest.json`, which holds its own hash.

The manifest names each array of the state with its shape, dtype and SHA-256, and each small file
with its size and SHA-256; beside them stand the identity of the run (its config, its data), the
versions of the libraries, and whatever else belongs to the state.
"""

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import reprlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.train.files import contents

FORMAT = 2
MOST = 1 << 24  # bytes of a manifest: far more than any state needs, and 35 times that in memory
FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("arrays", "files", "identity", "made_with"), (dict,)),
    **{"step": (int,), "score": (float, type(None)), "finite": (bool,), "extra": ()},
}  # and of which types, if not any
LIBRARIES = ("jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "flax")
# Of JAX's, those that TensorStore has in Zarr 2, each tried.
DTYPES = {
    *("bool", "int2", "int4", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bfloat16", "float16", "float32", "float64"),
    *("float4_e2m1fn", "float8_e3m4", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "complex64", "complex128"),
}
# What the system says where a file is not what it must be. Whatever else it says is of the process,
# the disk or the network, and may have passed by the next time.
AMISS = (
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENAMETOOLONG),
    *(errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP),  # of sockets and devices
)


class CheckpointError(ValueError):
    """A checkpoint that can't be used, and why."""


class DamagedError(CheckpointError):
    """It does not hold what was written."""


class SaveError(CheckpointError, OSError):
    """It could not be written; those before it are still there."""


class MismatchError(CheckpointError):
    """It is sound, and of another state, config, data or version than what is asked for."""


def is_passing(error: Exception) -> bool:
    """Whether an error says nothing of what is on the disk, as that of too many open files.

    An I/O error counts as such: of a network's disk it may pass, and what can't be read need not be
    renamed.
    """
    return isinstance(error, OSError) and error.errno not in AMISS


class Leaf(NamedTuple):
    """One array of a state, as a manifest has it."""

    shape: tuple[int, ...]
    dtype: str
    key: str = ""  # the implementation of a typed key, of which the array is the data

    @property
    def nbytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count * np.dtype(jnp.dtype(self.dtype)).itemsize


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a state by name: `params.layers.0.w_x`.

    Raises:
      ValueError: if two leaves have one name, or a name is too long for a file.
    """
    out: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = ".".join(_part(entry) for entry in path) or "state"
        if name in out:
            raise ValueError(f"state: two leaves are called {name}")
        if len(name) > 240:
            raise ValueError(f"state: the name {name[:60]}... has {len(name)} characters, over 240")
        out[name] = leaf
    return out


def _part(entry: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return quote(str(getattr(entry, attribute)), safe="").replace(".", "%2E")
    return quote(str(entry), safe="").replace(".", "%2E")


def leaf_of(array: Any, name: str = "state") -> Leaf:
    """The shape and dtype of an array, a typed key's data, or a `jax.ShapeDtypeStruct`."""
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        raise ValueError(f"{name}: expected an array, got {type(array).__name__}")
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = jax.eval_shape(jax.random.key_data, array)
        implementation = str(jax.random.key_impl(jax.random.key(0, dtype=array.dtype)))
        return Leaf(tuple(data.shape), str(data.dtype), implementation)
    if (dtype := str(np.dtype(array.dtype))) not in DTYPES:
        raise ValueError(f"{name}: expected an array of numbers, got dtype {dtype}")
    return Leaf(tuple(array.shape), dtype)


def versions() -> dict[str, str]:
    """The versions that a state was computed with."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    # Of a checkout, which the metadata does not know, too.
    found["jaxlstm"] = importlib.import_module("jaxlstm").__version__
    return {**found, "python": platform.python_version(), "platform": jax.default_backend()}


def make(
    step: int,
    leaves: Mapping[str, tuple[Leaf, str]],
    files: Mapping[str, tuple[int, str]],
    **more: Any,
) -> dict[str, Any]:
    """A manifest.

    Args:
      step: of the run.
      leaves: by name, each with the SHA-256 of its bytes.
      files: the small ones, by path, each with its size in bytes and SHA-256.
      **more: whatever else there is to say, as JSON.
    """
    return {
        "format": FORMAT,
        "step": step,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "arrays": {n: {**a._asdict(), "sha256": digest} for n, (a, digest) in leaves.items()},
        "files": {path: list(entry) for path, entry in files.items()},
        **more,
    }


def write(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes a manifest with its hash; durable when this returns."""
    body = _canonical(manifest)
    text = json.dumps({"sha256": _sha256(body.encode()), "manifest": manifest}, indent=1)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> dict[str, Any]:
    """Reads a manifest.

    Raises:
      DamagedError: if it is not there or not as it was written.
      MismatchError: if another version of this library wrote it.
      OSError: if it can't be read now.
    """
    try:
        raw = contents(path, MOST + 1)
        if len(raw) > MOST:
            raise DamagedError(f"checkpoint {path.parent}: the manifest is over {MOST:,} bytes")
        stored = json.loads(raw.decode())  # and no other encoding than the one it is written in
        manifest = stored["manifest"]
        sound = stored["sha256"] == _sha256(_canonical(manifest).encode())
        if not isinstance(manifest, dict):
            raise TypeError(f"it is a {type(manifest).__name__}")
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if is_passing(error):
            raise
        raise DamagedError(f"checkpoint {path.parent}: no sound manifest ({error})") from error
    if not sound:
        raise DamagedError(f"checkpoint {path.parent}: the manifest is not as it was written")
    if manifest.get("format") != FORMAT:
        found = manifest.get("format")
        raise MismatchError(
            f"checkpoint {path.parent} is of format {found}, and this version reads {FORMAT}"
        )
    for field, kinds in FIELDS.items():
        if field not in manifest or (kinds and type(manifest[field]) not in kinds):
            raise DamagedError(f"checkpoint {path.parent}: no sound manifest ({field} is amiss)")
    return manifest


def leaves(manifest: Mapping[str, Any], place: Path) -> dict[str, tuple[Leaf, str]]:
    """The arrays that a manifest lists, with their hashes."""
    out = {}
    try:
        for name, a in manifest["arrays"].items():
            shape = tuple(a["shape"])
            if not all(type(size) is int and size >= 0 for size in shape):
                raise ValueError(f"{name} has shape {_SHORT.repr(shape)}")
            dtype, key, sha256 = texts = a["dtype"], a["key"], a["sha256"]
            # Of what is no plain name NumPy would make a dtype of its own.
            if not all(type(text) is str for text in texts) or not dtype.isidentifier():
                raise ValueError(f"{name} is {_SHORT.repr(texts)}")
            out[name] = Leaf(shape, dtype, key), sha256
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"checkpoint {place}: no sound manifest ({error})") from error
    return out


def check_leaves(
    there: Mapping[str, tuple[Leaf, str]], wanted: Mapping[str, Leaf], place: Path
) -> None:
    """Raises MismatchError unless both have the same names, shapes and dtypes."""
    for name in sorted(set(wanted) ^ set(there)):
        where = "is missing" if name in wanted else "is not expected"
        raise MismatchError(f"checkpoint {place}: {name} {where}")
    for name, leaf in wanted.items():
        if there[name][0] != leaf:
            raise MismatchError(
                f"checkpoint {place}: {name} is {_words(there[name][0])}, expected {_words(leaf)}"
            )


def _words(leaf: Leaf) -> str:
    kind = f"the data of a {leaf.key} key" if leaf.key else leaf.dtype
    return f"{kind} of shape {leaf.shape}"


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Where two JSON values differ, a line for each place: `config.hidden: 12 there, 13 here`."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        lines = []
        for key in sorted(set(there) | set(here)):
            deeper = f"{name}.{key}" if name else str(key)
            lines += differences(there.get(key), here.get(key), deeper)
        return lines
    same = type(there) is type(here) and there == here
    return [] if same else [f"{name}: {_SHORT.repr(there)} there, {_SHORT.repr(here)} here"]


def as_json(value: Any, name: str) -> Any:
    """The value as JSON gives it back.

    Raises:
      ValueError: if JSON can't hold it.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=True))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected what JSON can hold: {error}") from error


_SHORT = reprlib.Repr()  # of what a stranger wrote, however long and deep
_SHORT.maxstring = _SHORT.maxother = 200


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
