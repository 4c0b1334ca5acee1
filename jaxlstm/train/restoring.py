"""Checkpoints read back: verified, never cast, and nothing changed on the disk."""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.train import arrays, manifest
from jaxlstm.train.manifest import CheckpointError, DamagedError, Leaf, MismatchError


class Restored(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: Any  # arrays in NumPy, keys typed
    extra: Any  # whatever was saved with it
    score: float | None
    warnings: list[str]  # a line for each checkpoint that could not be used


def steps(folder: str | os.PathLike) -> list[int]:
    """The steps of the finished checkpoints in a folder, oldest first."""
    found = Path(folder).iterdir() if Path(folder).exists() else ()
    # 007 is nobody's: as a step it would be read from 7.
    return sorted(int(p.name) for p in found if re.fullmatch("0|[1-9][0-9]*", p.name))


def restore(
    folder: str | os.PathLike,
    step: int,
    like: Any,
    identity: Mapping[str, Any] | None = None,
    made_with: Mapping[str, Any] | None = None,
) -> Restored:
    """Reads one checkpoint and verifies it; changes nothing, and needs no lock.

    Args:
      folder: of the checkpoints.
      step: which one.
      like: a pytree of arrays or `jax.ShapeDtypeStruct`, as the state must be.
      identity: as the run's must be; None for any.
      made_with: as the versions and the setting must be; None for any.

    Returns:
      What it holds. Nothing is cast.

    Raises:
      DamagedError: if it is not there, or not as it was written.
      MismatchError: if it is of another state, identity or version of this library.
      OSError: if it can't be read now, as with too many open files, or the disk fails.
    """
    place = Path(folder).absolute() / str(step)
    listed = _described(place)
    there = manifest.leaves(listed, place)
    for field, expected, what in (
        ("identity", identity, "is of another run"),
        ("made_with", made_with, "was made with other versions or devices"),
    ):
        if expected is not None:
            _check_same(place, what, listed[field], expected)
    wanted = {n: manifest.leaf_of(a, n) for n, a in manifest.named(like).items()}
    manifest.check_leaves(there, wanted, place)
    found = arrays.read(place / "arrays", there, listed["files"])
    state = typed(like, wanted.values(), [found[n] for n in wanted])
    return Restored(step, state, listed["extra"], listed["score"], [])


def restore_latest(folder: str | os.PathLike, like: Any) -> Restored | None:
    """Reads the newest sound checkpoint of whatever run; changes nothing, and needs no lock.

    Args:
      folder: of the checkpoints.
      like: as for `restore`.

    Returns:
      What it holds; None if there has never been a checkpoint.

    Raises:
      MismatchError: if the newest sound one is of another state.
      CheckpointError: if there are checkpoints but none is sound.
    """
    return newest(Path(folder).absolute(), like)


def restore_part(
    folder: str | os.PathLike, like: Any, part: str = "params", step: int | None = None
) -> Restored:
    """Reads and verifies one part of a state: the params alone, say, to fine-tune them.

    Args:
      folder: of the checkpoints.
      like: a pytree of arrays or `jax.ShapeDtypeStruct`, as the part must be.
      part: its name in the state: that of a field of a NamedTuple, or a key of a dict.
      step: of the checkpoint; None for the newest that is sound.

    Returns:
      What it holds, `state` being the part.

    Raises:
      DamagedError: if there is no such checkpoint, or none is as it was written.
      MismatchError: if its part is another.
    """
    folder = Path(folder).absolute()
    (quoted,) = manifest.named({part: 0})

    def read(number: int) -> Restored:
        place = folder / str(number)
        listed = _described(place)
        whole = manifest.leaves(listed, place)
        there = {n: leaf for n, leaf in whole.items() if (n + ".").startswith(quoted + ".")}
        wanted = {n: manifest.leaf_of(a, n) for n, a in manifest.named({part: like}).items()}
        manifest.check_leaves(there, wanted, place)
        found = arrays.read(place / "arrays", whole, listed["files"], only=there)
        state = typed(like, wanted.values(), [found[n] for n in wanted])
        return Restored(number, state, listed["extra"], listed["score"], [])

    if step is not None:
        return read(step)
    restored, warnings = _newest_sound(folder, read)
    if restored is None:
        raise DamagedError("; ".join([f"no sound checkpoint in {folder}", *warnings]))
    return restored


def best(folder: str | os.PathLike) -> int | None:
    """The step of the checkpoint with the least score; None if none has a score."""
    scored = [(score, -step) for step, (score, _) in standing(Path(folder)).items() if _ok(score)]
    return -min(scored)[1] if scored else None


def newest(
    folder: Path,
    like: Any,
    identity: Mapping[str, Any] | None = None,
    made_with: Mapping[str, Any] | None = None,
    aside: Callable[[Path], str] | None = None,
) -> Restored | None:
    read = lambda step: restore(folder, step, like, identity, made_with)
    found, warnings = _newest_sound(folder, read, aside)
    others = [p.name for kind in ("damaged*", "replaced") for p in folder.glob(f"*.{kind}")]
    if found is None and (warnings or others):
        detail = "; ".join(warnings) or ", ".join(sorted(others))
        raise CheckpointError(f"no sound checkpoint is left in {folder}: {detail}")
    return found


def _newest_sound(
    folder: Path, read: Callable[[int], Restored], aside: Callable[[Path], str] | None = None
) -> tuple[Restored | None, list[str]]:
    """The newest checkpoint that can be read, or None; and a line for each that is damaged.

    A writer may take away what was listed: then there may be newer ones, and all is listed again.
    """
    warnings: list[str] = []
    before, left = _damaged(folder), steps(folder)
    while left:
        place = folder / str(left.pop())
        number = _inode(place)
        try:
            found = read(int(place.name))
        except (DamagedError, OSError) as error:
            if not aside and (number is None or _inode(place) != number):
                warnings, before, left = [], _damaged(folder), steps(folder)
            elif isinstance(error, OSError):
                raise
            else:
                done = aside(place) if aside else "left where it is"
                warnings.append(f"{error}; {done}")
        else:
            newer = [name for name, step in before.items() if step > found.step]
            warnings += [f"checkpoint {folder / name}: was set aside before" for name in newer]
            return found._replace(warnings=warnings), warnings
    return None, warnings


def _damaged(folder: Path) -> dict[str, int]:
    """The names of those that were set aside, with their steps."""
    names = sorted(path.name for path in folder.glob("*.damaged*"))
    matches = (re.fullmatch(r"([0-9]+)\.damaged[0-9]*", name) for name in names)
    return {match[0]: int(match[1]) for match in matches if match}


def _inode(place: Path) -> int | None:
    try:
        return place.lstat().st_ino
    except FileNotFoundError:
        return None


def check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raises MismatchError if a checkpoint there is of another identity or version."""
    for step in steps(folder):
        place = folder / str(step)
        with contextlib.suppress(DamagedError):
            there = _described(place)["identity"]
            _check_same(place, "is of another run; use another folder", there, identity)


def _check_same(place: Path, what: str, there: Any, expected: Any) -> None:
    if lines := manifest.differences(there, expected):
        raise MismatchError("\n  ".join([f"checkpoint {place} {what}:", *lines]))


def _described(place: Path) -> dict[str, Any]:
    if place.is_symlink():
        raise DamagedError(f"checkpoint {place}: is a link")
    listed = manifest.read(place / "manifest.json")
    if str(listed["step"]) != place.name:
        raise DamagedError(f"checkpoint {place}: the manifest is of step {listed['step']}")
    return listed


def typed(like: Any, kinds: Iterable[Leaf], found: Iterable[np.ndarray]) -> Any:
    """A pytree of such a structure, with keys for their data."""
    made = [
        jax.random.wrap_key_data(jnp.asarray(a), impl=leaf.key) if leaf.key else a
        for leaf, a in zip(kinds, found, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), made)


def _ok(score: float | None) -> bool:
    return score is not None and score == score


def standing(folder: Path) -> dict[int, tuple[float | None, bool]]:
    """Of each checkpoint whose manifest is sound, its score and whether it is finite."""
    out = {}
    for step in steps(folder):
        try:
            listed = _described(folder / str(step))
            out[step] = listed["score"], listed["finite"]
        except CheckpointError:
            continue
    return out
