"""Damaged files: cut short, bits flipped, blocks zeroed, gone, stale, and others added.

Each trial spoils the newest of two sound checkpoints and asks for the newest sound one. The values
are compared with the arrays that were made, byte by byte.
"""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from jaxlstm.train import restoring
from tests.faults import kept
from tests.faults.harness import Outcome, battery, expect, seeds

OLDER, NEWER = "step 1 and a warning", "step 2, unharmed"
SMALL = 4096  # bytes; a shorter file is cut at every length
ASIDE = 50  # of so many trials one is restored by the writer, which sets the damaged one aside
FOREIGN = (
    "x", ".x", ".zattrs", ".zgroup", "zarr.json", "0", "0.0", "0.1", "1.0", "manifest.ocdbt", "d/x",
    "ocdbt.process_0/manifest.ocdbt", "checkpoint", "_sharding", "_strings.json", "array_metadatas",
    "_METADATA.new", "manifest.json.new", "commit_success.txt2", "é",
)  # fmt: skip


def truncated(folder: Path, most: int | None = None) -> Outcome:
    """Each file of the newest cut to every length, or to 500 random ones if it is large."""
    place = _made(folder) / "2"
    rng = random.Random("truncated")
    trials, large = [], []
    for path in _files(place):
        size = path.stat().st_size
        if size < SMALL:
            trials += [(path, length) for length in range(size)]
        else:
            large.append((path, size))
    for number in range(500):
        path, size = large[number % len(large)]
        # Near the ends too, where a block or all but a byte is there.
        length = rng.choice([rng.randrange(size), rng.randrange(9), size - 1 - rng.randrange(9)])
        trials.append((path, length))
    name = "truncation at every length"
    return battery(name, _some(trials, most), lambda t: _cut(place, *t))


def _cut(place: Path, path: Path, length: int) -> str:
    return _spoiled(place, path, lambda raw: raw[:length], aside=length % ASIDE == 7)


def flipped(folder: Path, count: int) -> Outcome:
    """One bit of one file: half of them by files, half by bytes, which are the large arrays'."""
    place = _made(folder) / "2"
    files = _files(place)
    sizes = [path.stat().st_size for path in files]
    rngs = seeds("flip", count)

    def attempt(number):
        rng = rngs[number]
        path = rng.choices(files, sizes if rng.random() < 0.5 else None)[0]

        def flip(raw):
            at, bit = rng.randrange(len(raw)), rng.randrange(8)
            return raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]

        return _spoiled(place, path, flip, aside=number % ASIDE == 0)

    return battery("a flipped bit", range(count), attempt)


def zeroed(folder: Path, count: int) -> Outcome:
    """Blocks of zeros, as a disk leaves them: of 512 and 4096 bytes, or anywhere and of any size.

    Those that were zeros before leave the checkpoint as it was.
    """
    place = _made(folder) / "2"
    files = _files(place)
    sizes = [path.stat().st_size for path in files]
    rngs = seeds("zero", count)

    def attempt(number):
        rng = rngs[number]
        path = rng.choices(files, sizes if rng.random() < 0.7 else None)[0]
        block = rng.choice([512, 4096, None])

        def zero(raw):
            if block is None:
                begin = rng.randrange(len(raw))
                end = rng.randint(begin + 1, len(raw))
            else:
                begin = block * rng.randrange(-(-len(raw) // block))
                end = min(begin + block, len(raw))
            return raw[:begin] + bytes(end - begin) + raw[end:]

        return _spoiled(place, path, zero, aside=number % ASIDE == 0)

    return battery("a zeroed block", range(count), attempt)


def deleted(folder: Path, most: int | None = None) -> Outcome:
    """Each file and folder gone, empty, of another kind or stale; and others beside them."""
    template = _made(folder / "template")
    made = folder / "checkpoints"
    names = sorted(str(p.relative_to(template)) for p in (template / "2").rglob("*"))
    trials: list[tuple[str, str, str]] = [(name, "gone", OLDER) for name in names]
    trials += [("2", "gone", "step 1, as if 2 had never been"), ("1", "gone", NEWER)]
    for name in ["2", *names]:
        old, new = template / ("1" + name[1:]), template / name
        if new.is_file():
            trials += [(name, "empty", OLDER), (name, "a folder", OLDER), (name, "longer", OLDER)]
            same = old.read_bytes() == new.read_bytes()
            trials.append((name, "stale", NEWER if same else OLDER))
        else:
            kinds = ("empty", "a file", "stale")
            trials += [
                (name, kind, OLDER) for kind in kinds if name.count("/") < 2 or kind != kinds
            ]
            # Beside the manifest, and in the folder above, nothing is looked for.
            counts = NEWER if name == "2" else OLDER
            foreign = [f for f in FOREIGN if not os.path.lexists(new / f)]
            trials += [(f"{name}/{f}", "added", counts) for f in foreign]
    trials += [(name, "added", NEWER) for name in FOREIGN if not name.isdecimal()]
    trials += [(name, "added", "step 2, 3 being damaged") for name in ("3", "3/arrays/x")]
    trials += [(f"2/arrays/{a}", "swapped", OLDER) for a in ("zeros", "params.w", "key")]

    def attempt(trial):
        name, kind, expected = trial
        kept.renew(made, template)
        _change(made, made / name, kind)
        found = restoring.restore_latest(made, kept.like())
        return _verdict(made, found, expected)

    return battery("files gone, emptied, swapped, stale or added", _some(trials, most), attempt)


def _change(made: Path, path: Path, kind: str) -> None:
    name = str(path.relative_to(made))
    folder = path.is_dir()
    if kind == "added":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"foreign")
    elif kind == "longer":
        path.write_bytes(path.read_bytes() + b"\0")
    elif kind == "swapped":
        other = path.parent / "params.mask"
        path.rename(path.parent / "between")
        other.rename(path)
        (path.parent / "between").rename(other)
    else:
        kept.clear(path)
        if kind == "a folder" or (kind == "empty" and folder):
            path.mkdir()
        elif kind in ("a file", "empty"):
            path.write_bytes(b"")
        elif kind == "stale":
            copy: Callable = shutil.copytree if folder else shutil.copy
            copy(made / ("1" + name[1:]), path)


def _verdict(made: Path, found: restoring.Restored | None, expected: str) -> str:
    assert found is not None
    step = int(expected.split()[1].rstrip(","))
    expect(found.step == step, "step", found.step, "and", found.warnings, "instead of", expected)
    kept.expect_same(found.state, step)
    expect(found.extra == {"epoch": step}, "extra", found.extra)
    named = {OLDER: "2", "step 2, 3 being damaged": "3"}.get(expected)
    if named is None:
        expect(not found.warnings, found.warnings)
    else:
        expect(len(found.warnings) == 1, found.warnings)
        said = re.search(rf"{re.escape(str(made))}/{named}\b", found.warnings[0])
        expect(said, found.warnings[0], "does not name step", named)
    return expected


def _spoiled(place: Path, path: Path, spoil: Callable[[bytes], bytes], aside: bool) -> str:
    """What is restored while a file is spoiled; it is put back."""
    raw = path.read_bytes()
    bad = spoil(raw)
    path.write_bytes(bad)
    try:
        expected = OLDER if bad != raw else NEWER
        if not aside:
            return _verdict(
                place.parent, restoring.restore_latest(place.parent, kept.like()), expected
            )
        with kept.store(place.parent) as store:
            found = store.restore(kept.like())
        word = _verdict(place.parent, found, expected)
        damaged = place.parent / "2.damaged"
        expect(damaged.exists() == (bad != raw), "set aside or not: not as it should be")
        if damaged.exists():
            expect("set aside as 2.damaged" in found.warnings[0], found.warnings[0])
            damaged.rename(place)
        return word
    finally:
        if not place.exists():
            place.with_name("2.damaged").rename(place)
        path.write_bytes(raw)


def _made(folder: Path) -> Path:
    made = kept.filled(folder, 1, 2)
    found = restoring.restore_latest(made, kept.like())
    _verdict(made, found, NEWER)
    return made


def _files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


def _some(trials: list, most: int | None) -> list:
    return trials if most is None else random.Random("some").sample(trials, most)
