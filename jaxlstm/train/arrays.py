"""The arrays of a checkpoint on disk: written and read by Orbax, each held to its hash.

Each array is a folder of the name that the manifest gives it, in the format Zarr 2, whole and not
compressed: the one file in it beside `.zarray` is the array's bytes. So the hash of the array is
the hash of the file, whatever a file holds can be checked before Orbax sees it, and nothing in it
can grow when it is read.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxlstm.train.files import contents, sync
from jaxlstm.train.manifest import CheckpointError, DamagedError, Leaf, is_passing

# Orbax's own files, beside the arrays' folders.
OWN = ("_METADATA", "_CHECKPOINT_METADATA", "commit_success.txt")


def write(folder: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, str]]:
    """Writes arrays; durable when this returns.

    Args:
      folder: where to; it must not be there.
      arrays: by name. One of size zero has no bytes and gets no file.

    Returns:
      The size and SHA-256 of each small file, by its path in the folder.
    """
    full = {name: a for name, a in arrays.items() if a.size}
    if full:
        with _checkpointer() as checkpointer:
            checkpointer.save(folder, full)
    else:
        folder.mkdir()
    small = {}
    for path in sorted(folder.rglob("*")):
        sync(path)
        where = path.relative_to(folder)
        if path.is_file() and not _is_bytes(where):
            raw = path.read_bytes()
            small[str(where)] = len(raw), hashlib.sha256(raw).hexdigest()
    sync(folder)
    return small


def read(
    folder: Path,
    leaves: Mapping[str, tuple[Leaf, str]],
    files: Mapping[str, Any],
    only: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Reads arrays and verifies them.

    Args:
      folder: of the arrays.
      leaves: what must be there, each with its SHA-256.
      files: the small files that must be there, each with its size and SHA-256.
      only: names to read; None for all.

    Raises:
      DamagedError: if anything is not as it was written.
      CheckpointError, OSError: if it can't be read now.
    """
    _judge(_check_files, folder, leaves, files)
    wanted = {n: leaf for n, (leaf, _) in leaves.items() if only is None or n in only}
    full = {n for n, leaf in wanted.items() if leaf.nbytes}
    try:
        as_numpy = {n: ocp.RestoreArgs(restore_type=np.ndarray) for n in full}
        stored: dict[str, Any] = {}
        if full:
            with _checkpointer() as checkpointer:
                stored = checkpointer.restore(
                    folder,
                    args=ocp.args.PyTreeRestore(
                        item=dict.fromkeys(full, 0), restore_args=as_numpy, partial_restore=True
                    ),
                )
    except MemoryError:
        raise
    except Exception as error:  # whatever a storage library says of damaged files, or of its own
        _judge(_check_bytes, folder, {name: leaves[name] for name in full})
        said = f"checkpoint {folder.parent}: sound, but can't be read now ({error})"
        raise CheckpointError(said) from error
    for name, leaf in wanted.items():
        if name not in full:
            stored[name] = np.zeros(leaf.shape, jnp.dtype(leaf.dtype))
        if not isinstance(a := stored.get(name), np.ndarray):
            raise DamagedError(f"checkpoint {folder.parent}: {name} is no array")
        if (a.shape, str(a.dtype)) != (leaf.shape, leaf.dtype):
            raise DamagedError(f"checkpoint {folder.parent}: {name} is damaged")
    for name, sha256 in digests({name: stored[name] for name in wanted}).items():
        if sha256 != leaves[name][1]:
            raise DamagedError(f"checkpoint {folder.parent}: {name} is damaged")
    return {name: stored[name] for name in wanted}


def digests(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The SHA-256 of each array's bytes, a few side by side: hashing holds no lock."""
    raw = [np.ascontiguousarray(a).reshape(-1).view(np.uint8).data for a in arrays.values()]
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = pool.map(lambda r: hashlib.sha256(r).hexdigest(), raw)
        return dict(zip(arrays, hashes, strict=True))


def on_host(tree: Any) -> Any:
    """A copy of a state in NumPy arrays, typed keys as their data.

    A copy, as a donated buffer is written over while it is being saved.

    Raises:
      ValueError: if an array is spread over several processes.
    """

    def one(array: Any) -> np.ndarray:
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            if not array.is_fully_replicated:
                raise ValueError(
                    "state: an array is spread over several processes; gather it by "
                    "jaxlstm.train.distributed.gathered first"
                )
            array = array.addressable_data(0)
        return np.array(array, copy=True, order="C")

    return jax.tree.map(one, tree)


def _checkpointer() -> ocp.Checkpointer:
    alone = _alone()
    handler = ocp.PyTreeCheckpointHandler(
        use_ocdbt=False, use_compression=False, multiprocessing_options=alone
    )
    # Orbax's own merges what processes wrote apart, and warns where they did not.
    handler.finalize = lambda directory: None
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _alone() -> ocp.options.MultiprocessingOptions:
    """No process waits for another: what is written is complete in the one that writes."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )


def _is_bytes(where: Path) -> bool:
    return len(where.parts) == 2 and where.name != ".zarray"


def _chunk(leaf: Leaf) -> str:
    return ".".join("0" for _ in leaf.shape) or "0"


def _judge(check: Callable[..., None], folder: Path, *what: Any) -> None:
    """Raises DamagedError for what a check finds amiss, and whatever may pass as it is."""
    try:
        check(folder, *what)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if is_passing(error):
            raise
        raise DamagedError(f"checkpoint {folder.parent}: {error}") from error


def _check_bytes(folder: Path, leaves: Mapping[str, tuple[Leaf, str]]) -> None:
    """Raises ValueError unless the arrays' files have their hashes."""
    for name, (leaf, sha256) in leaves.items():
        raw = contents(folder / name / _chunk(leaf), leaf.nbytes + 1)
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise ValueError(f"{name} is damaged")


def _check_files(
    folder: Path, leaves: Mapping[str, tuple[Leaf, str]], files: Mapping[str, Any]
) -> None:
    """Raises ValueError unless the folder holds the very files it must, of the right sizes."""
    full = {name: leaf for name, (leaf, _) in leaves.items() if leaf.nbytes}
    expected = {f"{name}/{_chunk(leaf)}": leaf.nbytes for name, leaf in full.items()}
    small = {f"{name}/.zarray" for name in full} | set(OWN if full else ())
    if set(files) != small:
        raise ValueError(f"the manifest lists other files: {sorted(set(files) ^ small)[:4]}")
    for name in sorted({".", *full}):
        _check_kind(folder / name, stat.S_ISDIR, "folder")
    found = set()
    for place, folders, others in os.walk(folder, onerror=_raise):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found |= {str((Path(place) / name).relative_to(folder)) for name in others + links}
    if found != set(expected) | small:
        raise ValueError(f"there are other files: {sorted(found ^ (set(expected) | small))[:4]}")
    for where, size in expected.items():
        if (there := _check_kind(folder / where, stat.S_ISREG, "file").st_size) != size:
            raise ValueError(f"{where} has {there:,} bytes instead of {size:,}")
    most = 4096 + 1024 * len(full)  # names have 240 characters, and stand there twice
    for where in sorted(small):
        size, sha256 = files[where]
        if type(size) is not int or not 0 <= size <= most:
            raise ValueError(f"{where} has {size} bytes, says the manifest")
        raw = contents(folder / where, size + 1)
        if len(raw) != size or hashlib.sha256(raw).hexdigest() != sha256:
            raise ValueError(f"{where} is damaged")
        if where.endswith("/.zarray"):
            _check_zarr(json.loads(raw.decode()), full[where.removesuffix("/.zarray")], where)
        elif where == "_METADATA":
            _check_tree(json.loads(raw.decode()), set(full))


def _raise(error: OSError) -> None:
    raise error


def _check_kind(path: Path, is_kind: Any, kind: str) -> os.stat_result:
    status = path.lstat()
    if not is_kind(status.st_mode):
        raise ValueError(f"{path.name} is no {kind}")
    return status


def _check_tree(description: Mapping[str, Any], names: set[str]) -> None:
    """Orbax builds the tree that is described before it looks for arrays: it must be a flat one."""
    if description.get("use_zarr3") or description.get("use_ocdbt"):
        raise ValueError("the arrays are in another format than Zarr 2")
    found = []
    for entry in description["tree_metadata"].values():
        value = entry["value_metadata"]
        if (value["value_type"], value["skip_deserialize"]) != ("np.ndarray", False):
            raise ValueError(f"_METADATA says {value!r}"[:200])
        found += [(key["key"], key["key_type"]) for key in entry["key_metadata"]]
    if len(found) != len(names) or set(found) != {(name, 2) for name in names}:
        raise ValueError("_METADATA is of other arrays")


def _check_zarr(description: Mapping[str, Any], leaf: Leaf, where: str) -> None:
    """Reading allocates what a description says: it must be the manifest's."""
    dtype = np.dtype(jnp.dtype(leaf.dtype))
    plain = {
        "chunks": list(leaf.shape),
        "compressor": None,
        # Of a wide one TensorStore takes the room before it looks for it, and aborts.
        "dtype": dtype.str if dtype.isbuiltin == 1 else dtype.name,
        "dimension_separator": ".",
        "fill_value": None,
        "filters": None,
        "order": "C",
        "shape": list(leaf.shape),
        "zarr_format": 2,
    }
    for field, value in plain.items():
        if description.get(field) != value:
            raise ValueError(f"{where} says {field} {description.get(field)!r}, not {value!r}")
    if set(description) != set(plain):
        raise ValueError(f"{where} says more than it should: {sorted(description)}")
