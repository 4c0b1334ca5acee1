"""Two writers, locks that were left behind, and saves that fail with nothing else kept."""

import json
import os
import threading
from pathlib import Path

import numpy as np

from jaxlstm.train import restoring
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.manifest import SaveError
from tests.faults.counting import like
from tests.faults.harness import (
    Outcome,
    battery,
    differing,
    ended,
    expect,
    language_model,
    seeds,
    start,
    trace,
)
from tests.faults.kills import command, whole


def two(folder: Path, count: int) -> Outcome:
    """The same command twice at once, and after a lock was left behind."""
    text, expected, _ = whole()
    folder.mkdir(parents=True)

    def attempt(rng):
        run = folder / f"run{rng.getrandbits(40)}"
        outs = [run.with_suffix(f".{n}.txt") for n in range(2)]
        stale = rng.random() < 0.5
        if stale:  # of a process that is gone: the number is over the largest there is
            (run / "checkpoints").mkdir(parents=True)
            left = {"host": "elsewhere", "pid": 2**22 + 1}
            (run / "checkpoints" / "LOCK").write_text(json.dumps(left))
        runs = [start(language_model, *command(run, text), out=out) for out in outs]
        codes = [ended(process) for process in runs]
        expect(sorted(codes) == [0, 1], codes, *(out.read_text()[-600:] for out in outs))
        refused = outs[codes.index(1)].read_text()
        expect("is being written by another process" in refused, refused[-600:])
        expect(f'"pid": {runs[codes.index(0)].pid}' in refused, "not by that one", refused[-600:])
        found = trace(run)
        expect(found == expected, differing(expected, found))
        return "second refused, a stale lock taken" if stale else "second refused"

    return battery("two writers, stale lock", seeds("two", count), attempt)


def failing(folder: Path, count: int) -> Outcome:
    """Asynchronous saves that fail at some call, with keep = 1: the latest is never wrong."""

    def state(step):
        return {"params": {"seen": np.full(23, step), "sum": np.full(2, float(step))}}

    def attempt(rng):
        place = folder / f"run{rng.getrandbits(40)}"
        saved, failed = 0, 0
        with Checkpoints(place, keep=1) as store:
            for step in range(1, 9):
                broken = _Broken(rng.randrange(1, 40)) if rng.random() < 0.6 else None
                try:
                    with broken or threading.Lock():
                        store.save(step, state(step), extra=step)
                        store.wait()
                    saved = step
                except SaveError as error:
                    failed += 1
                    expect("injected" in str(error), error)
                    # The new one may stand already, if it was the old that could not be deleted.
                    saved = step if "old checkpoints" in str(error) else saved
                if saved:
                    found = restoring.restore_latest(place, like())
                    expect(found.extra in (saved, step), "latest is", found.extra, "not", saved)
                    expect((found.state["params"]["seen"] == found.extra).all(), "a wrong value")
                    expect(not found.warnings, found.warnings)
                    saved = found.extra
        return "saves failed and were told" if failed else "no save failed"

    return battery("failing asynchronous save, keep = 1", seeds("failing", count), attempt)


class _Broken:
    """While it is entered, the system refuses the n-th call of those that a save makes."""

    names = ("fsync", "rename", "mkdir", "unlink", "rmdir", "open")

    def __init__(self, number: int):
        self._left = number

    def __enter__(self):
        self._whole = {name: getattr(os, name) for name in self.names}
        for name, call in self._whole.items():
            setattr(os, name, self._counted(call))

    def __exit__(self, *error):
        for name, call in self._whole.items():
            setattr(os, name, call)

    def _counted(self, call):
        def counted(*arguments, **options):
            self._left -= 1
            if self._left == 0:
                raise OSError(5, "injected")
            return call(*arguments, **options)

        return counted
