"""Checkpoints that are whole or are not there: Orbax, with a manifest that is verified.

A checkpoint is a folder named by its step: the arrays as Orbax writes them, under `arrays`,
and `manifest.json` with the shape, dtype and SHA-256 of each array and whatever else belongs
to the state. It is written beside its place and renamed, so that a folder with a number for
its name is a finished one. Orbax alone gives back flipped bits without a word; here every
array is held to its hash, and dtypes are never cast.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that can't be used, and why."""


def save(
    folder: str | os.PathLike, step: int, state: Any, extra: dict[str, Any], keep: int = 2
) -> None:
    """Writes a checkpoint, durably, and then deletes all but the newest `keep`.

    Args:
      folder: of the checkpoints; made if it is not there.
      step: a number that tells this state from others of the run.
      state: a pytree of arrays.
      extra: whatever else belongs to the state, as JSON: the position in the data, say.
      keep: how many checkpoints to leave there.

    Raises:
      OSError: if it can't be written; the checkpoints before are then still there.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.writing"):
        shutil.rmtree(left)
    writing, final = folder / f"{step}.writing", folder / str(step)
    arrays = _named(jax.device_get(state))
    with _checkpointer() as checkpointer:
        checkpointer.save(writing / "arrays", arrays)
    manifest = {
        "format": FORMAT,
        "step": step,
        "arrays": {name: _identity(a) for name, a in arrays.items()},
        "extra": extra,
    }
    (writing / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for path in sorted(writing.rglob("*")):
        _sync(path)
    if final.exists():
        shutil.rmtree(final)
    writing.rename(final)
    _sync(folder)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / str(old))


def steps(folder: str | os.PathLike) -> list[int]:
    """The steps of the finished checkpoints in a folder, oldest first."""
    folder = Path(folder)
    return (
        sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal())
        if folder.exists()
        else []
    )


def restore(folder: str | os.PathLike, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint and verifies it.

    Args:
      folder: of the checkpoints.
      step: which one.
      like: a pytree of arrays or `jax.ShapeDtypeStruct` as the state must be.

    Returns:
      The state, as NumPy arrays, and `extra`.

    Raises:
      CheckpointError: if it is damaged, or does not hold such a state.
    """
    place = Path(folder).absolute() / str(step)
    try:
        manifest = json.loads((place / "manifest.json").read_text())
        listed, extra = manifest["arrays"], manifest["extra"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {place}: no sound manifest ({error})") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint {place}: format {manifest.get('format')!r}, not {FORMAT}"
        )
    wanted = _named(like)
    for name in sorted(set(wanted) ^ set(listed)):
        where = "is missing" if name in wanted else "is not expected"
        raise CheckpointError(f"checkpoint {place}: {name} {where}")
    for name, a in wanted.items():
        stored = (tuple(listed[name]["shape"]), listed[name]["dtype"])
        if stored != (tuple(a.shape), str(a.dtype)):
            raise CheckpointError(
                f"checkpoint {place}: {name} is {stored}, expected {(tuple(a.shape), str(a.dtype))}"
            )
    try:
        with _checkpointer() as checkpointer:
            as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in wanted}
            arrays = checkpointer.restore(place / "arrays", restore_args=as_numpy)
    except Exception as error:  # whatever a storage library says of damaged files
        raise CheckpointError(f"checkpoint {place}: can't be read ({error})") from error
    for name in wanted:
        if name not in arrays or _identity(arrays[name]) != listed[name]:
            raise CheckpointError(f"checkpoint {place}: {name} is damaged")
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in wanted]), extra


def restore_latest(
    folder: str | os.PathLike, like: Any
) -> tuple[Any, dict[str, Any], list[str]] | None:
    """Reads the newest sound checkpoint; damaged ones are set aside, as `STEP.damaged`.

    Args:
      folder: of the checkpoints.
      like: as for `restore`.

    Returns:
      The state, `extra`, and a line for each checkpoint that was set aside; None if there has
      never been a checkpoint.

    Raises:
      CheckpointError: if there are checkpoints but none is sound.
    """
    warnings: list[str] = []
    for step in reversed(steps(folder)):
        try:
            state, extra = restore(folder, step, like)
        except CheckpointError as error:
            warnings.append(f"{error}; set aside as {step}.damaged")
            aside = Path(folder) / f"{step}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            (Path(folder) / str(step)).rename(aside)
        else:
            return state, extra, warnings
    damaged = sorted(p.name for p in Path(folder).glob("*.damaged"))
    if damaged:
        detail = "; ".join(warnings) or ", ".join(damaged)
        raise CheckpointError(f"no sound checkpoint is left in {folder}: {detail}")
    return None


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


def _named(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): a for path, a in jax.tree_util.tree_leaves_with_path(tree)}


def _identity(array: Any) -> dict[str, Any]:
    array = np.asarray(array)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
