"""What becomes of the checkpoints that are not needed any more, or are damaged."""

import os
import re
from pathlib import Path

from jaxlstm.train import restoring
from jaxlstm.train.files import remove, sync


def set_aside(place: Path) -> str:
    """Renames a damaged checkpoint, and says so."""
    name, count = f"{place.name}.damaged", 1
    while os.path.lexists(place.parent / name):
        count += 1
        name = f"{place.name}.damaged{count}"
    place.rename(place.parent / name)
    sync(place.parent)
    return f"set aside as {name}"


def prune(folder: Path, keep: int, written: int) -> None:
    """Deletes all but the newest, the newest that is finite, the best, and the one just written."""
    standing = restoring.standing(folder)
    finite = [step for step, (_, is_finite) in standing.items() if is_finite]
    kept = {*sorted(standing)[-keep:], *finite[-1:], restoring.best(folder), written}
    for step in standing:
        if step not in kept:
            leaving = folder / f"{step}.deleting"
            remove(leaving)
            (folder / str(step)).rename(leaving)
    tidy(folder)


def tidy(folder: Path) -> None:
    """Takes away what a killed writer left; what it had moved to make room goes back."""
    for replaced in left(folder, "replaced"):
        if not os.path.lexists(replaced.with_suffix("")):
            replaced.rename(replaced.with_suffix(""))
    for path in left(folder, "writing", "deleting", "replaced"):
        remove(path)


def left(folder: Path, *kinds: str) -> list[Path]:
    """What a writer left there of its own: `STEP.KIND`, and no file of another name."""
    pattern = rf"[0-9]+\.({'|'.join(kinds)})"
    return [path for path in folder.iterdir() if re.fullmatch(pattern, path.name)]
