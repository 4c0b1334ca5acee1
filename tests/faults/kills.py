"""Kills: at random times, and at every system call by which a checkpoint is committed."""

import atexit
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from jaxlstm.train import restoring
from tests.faults import counting
from tests.faults.harness import (
    LANES,
    SMALL,
    TEXT,
    Outcome,
    battery,
    differing,
    ended,
    expect,
    kill_after,
    language_model,
    seeds,
    start,
    trace,
)  # fmt: skip

CALLS = ("rename", "fsync", "mkdir", "unlink", "unlinkat", "rmdir")
STRACE = shutil.which("strace")


def command(folder: Path, text: Path) -> tuple[str, ...]:
    return (f"--train={text}", f"--workdir={folder}", *SMALL)


@cache
def whole() -> tuple[Path, dict, float]:
    """A text, the trace of an uninterrupted run over it, and the time it took."""
    folder = Path(tempfile.mkdtemp(prefix="faults"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    text = folder / "text.py"
    text.write_text(TEXT, encoding="utf-8")
    for name in ("warm", "whole"):  # the first one alone waits for imports
        began = time.perf_counter()
        arguments = command(folder / name, text)
        code = ended(start(language_model, *arguments, out=folder / f"{name}.txt"))
        expect(code == 0, "the uninterrupted run", (folder / f"{name}.txt").read_text()[-2000:])
    return text, trace(folder / "whole"), time.perf_counter() - began


def at_random_times(folder: Path, count: int, signals=(signal.SIGKILL,), name="SIGKILL") -> Outcome:
    """Runs of the language model, each killed at random times until it comes to its end.

    A run that ended before its kill came counts for nothing but the check of its end.
    """
    text, expected, seconds = whole()
    folder.mkdir(parents=True)
    kill = name == "SIGKILL"
    codes = {-signal.SIGKILL} if kill else {75, *(128 + s for s in signals)}
    # A signal may come before the run listens for it; there is nothing to save then.
    codes |= set() if kill else {130, -signal.SIGTERM}
    ends: Counter = Counter()

    def attempt(rng):
        run = folder / f"run{rng.getrandbits(40)}"
        out, code, kills = run.with_suffix(".txt"), None, 0
        while code != 0:
            process = start(language_model, *command(run, text), out=out)
            last = kills == 12  # enough for one run
            code = (
                ended(process) if last else kill_after(process, rng.uniform(0, seconds), *signals)
            )
            expect(code == 0 or (code in codes and not last), code, out.read_text()[-1500:])
            if code != 0:
                kills += 1
                ends[code] += 1
        found = trace(run)
        expect(found == expected, differing(expected, found))
        shutil.rmtree(run)
        return "runs to the very same end"

    return _until(name, count, attempt, ends)


def _until(name: str, count: int, attempt, ends: Counter) -> Outcome:
    """Attempts until there were that many kills; the kills, and what became of the runs."""
    outcomes = []
    while sum(ends.values()) < count and all(o.passed == o.count for o in outcomes):
        trials = seeds(f"{name} {len(outcomes)}", min(2 * LANES, count))
        outcomes.append(battery(name, trials, attempt, LANES))
    kills, failed = sum(ends.values()), sum(o.count - o.passed for o in outcomes)
    codes = ", ".join(f"{n} x exit {code}" for code, n in sorted(ends.items()))
    detail = f"{sum(o.passed for o in outcomes)} runs to the very same end; {codes}"
    failures = "; ".join(o.detail for o in outcomes if o.passed < o.count)
    return Outcome(name, kills + failed, kills, "; ".join(filter(None, [detail, failures])))


def traced(folder: Path, inject: str, *options) -> int:
    """The exit code of a counting run under strace, which injects a fault."""
    gate = folder.with_suffix(".gate")
    process = start(_gated, str(gate), str(folder), *options, out=folder.with_suffix(".txt"))
    tracing = subprocess.Popen(
        [STRACE, "-f", "-qq", "-p", str(process.pid), "-e", "trace=" + inject.split(":")[0],
         "-e", f"inject={inject}", "-o", str(folder.with_suffix(".strace"))],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    status = Path(f"/proc/{process.pid}/status")
    until = time.monotonic() + 20
    while "TracerPid:\t0" in status.read_text() and time.monotonic() < until:
        time.sleep(0.002)
    gate.touch()
    try:
        return ended(process, 60)
    finally:
        tracing.wait(10)


def _gated(gate: str, *arguments) -> None:
    while not Path(gate).exists():
        time.sleep(0.002)
    counting.run(*arguments)


def counted(folder: Path) -> dict:
    """An uninterrupted counting run's trace; Failure unless each sample was seen once an epoch."""
    code = ended(start(counting.run, str(folder), out=folder.with_suffix(".txt")))
    expect(code == 0, folder.with_suffix(".txt").read_text()[-1500:])
    exactly_once(folder)
    return trace(folder)


def exactly_once(folder: Path) -> None:
    found = restoring.restore_latest(folder / "checkpoints", counting.like())
    seen = found.state["params"]["seen"]
    expect((seen == counting.EPOCHS).all(), "samples seen", np.unique(seen))


def at_system_calls(folder: Path, most: int | None) -> Outcome:
    """A kill at each call of each kind in turn, until a run has no such call any more."""
    folder.mkdir(parents=True)
    fault = "SIGKILL at each commit system call (" + ", ".join(CALLS) + ")"
    if STRACE is None:
        return Outcome(fault, 0, 0, "skipped: strace is missing")
    expected = counted(folder / "whole")
    lock, trials = threading.Lock(), []

    def attempt(call):
        number = reached = 0
        while most is None or reached < most:
            number += 1 if most is None else 7
            run = folder / f"{call}{number}"
            # Saves in the run's own thread, so that strace counts through all of them.
            code = traced(run, f"{call}:signal=KILL:when={number}", 4, False)
            if code == 0:
                break
            expect(code == -signal.SIGKILL, call, number, "exit code", code)
            reached += 1
            out = run.with_suffix(".txt")
            code = ended(start(counting.run, str(run), 4, False, out=out))
            expect(code == 0, call, number, out.read_text()[-1500:])
            exactly_once(run)
            found = trace(run)
            expect(found == expected, call, number, differing(expected, found))
            shutil.rmtree(run)
        with lock:
            trials.append((call, reached))
        return call

    done = battery(fault, CALLS, attempt, LANES)
    lost = 0 if done.passed == done.count else 1
    detail = done.detail if lost else ", ".join(f"{n} x {call}" for call, n in sorted(trials))
    count = sum(n for _, n in trials)
    return done._replace(count=count + lost, passed=count, detail=detail)


def samples(folder: Path, count: int) -> Outcome:
    """Kills of shuffled epochs: each sample is seen exactly once an epoch."""
    folder.mkdir(parents=True)
    expected = counted(folder / "whole")
    ends: Counter = Counter()

    def attempt(rng):
        run = folder / f"run{rng.getrandbits(40)}"
        out, code = run.with_suffix(".txt"), None
        while code != 0:
            process = start(counting.run, str(run), 2, True, 1, 0.02, out=out)
            code = kill_after(process, rng.uniform(0, 0.8), signal.SIGKILL)
            expect(code in (0, -signal.SIGKILL), "exit code", code, out.read_text()[-1500:])
            if code != 0:
                ends[code] += 1
        exactly_once(run)
        expect(trace(run) == expected, differing(expected, trace(run)))
        return "each sample once an epoch"

    return _until("SIGKILL amid shuffled epochs", count, attempt, ends)
