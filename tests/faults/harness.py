"""Runs that can be started often: each a fork of one process that has imported everything."""

import contextlib
import json
import multiprocessing
import os
import random
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from jaxlstm.train import manifest, restoring

LANES = 2  # runs side by side
STEPS = 40
TEXT = "".join(f"def f{n % 7}(x):\n    return x + {n % 11}  # é\n" for n in range(300))
SMALL = (
    "--hidden=12", "--embedding=6", "--batch=4", "--window=16", f"--steps={STEPS}",
    "--log-every=3", "--watch-every=10", "--watch-symbols=200", "--sample-length=20",
    "--checkpoint-steps=2", "--checkpoint-seconds=1000",
)  # fmt: skip


class Outcome(NamedTuple):
    fault: str
    count: int
    passed: int
    detail: str


class Failure(Exception):
    """What a fault did that it must not do."""


def expect(truth: Any, *what: Any) -> None:
    if not truth:
        raise Failure(" ".join(map(str, what)))


def battery(fault: str, trials: Iterable[Any], attempt: Callable[[Any], str], lanes=1) -> Outcome:
    """Makes the attempts; each returns a word for what happened, or raises Failure."""
    trials = list(trials)

    def one(trial):
        try:
            return attempt(trial) or "", None
        except Failure as failure:
            return "", f"{trial}: {failure}"

    with ThreadPoolExecutor(lanes) as pool:
        done = list(pool.map(one, trials))
    failures = [failure for _, failure in done if failure]
    for failure in failures[:20]:
        print(f"FAILED {fault}: {failure}", flush=True)
    words = sorted({word for word, failure in done if word and not failure})
    counted = [f"{sum(w == word for w, f in done if not f)} {word}" for word in words]
    detail = "; ".join([*counted, *failures[:1]])
    return Outcome(fault, len(trials), len(trials) - len(failures), detail)


def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.preload"])
    return context


def start(target: Callable[..., Any], *arguments: Any, out: Path) -> Any:
    """A process that runs `target(*arguments)`, its output in a file."""
    process = _context().Process(target=_child, args=(target, arguments, str(out)))
    process.start()
    return process


def _child(target, arguments, out):
    # A shell's background job ignores SIGINT, and so do its children unless they are told not to.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    target(*arguments)


def language_model(*arguments: str) -> None:
    """In a process of its own: the language model's command."""
    sys.argv = ["experiments.language_model", *arguments]
    runpy.run_module("experiments.language_model", run_name="__main__", alter_sys=True)


def ended(process: Any, seconds: float = 120) -> int:
    """The exit code of a process; Failure if it does not end."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise Failure(f"did not end within {seconds:.0f} s")
    return process.exitcode


def kill_after(process: Any, seconds: float, *signals: int, between: float = 0.002) -> int:
    """Sends signals after a while, unless it is over before; the exit code."""
    process.join(seconds)
    for number in signals:
        if process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):  # over just now
                os.kill(process.pid, number)
            time.sleep(between)
    return ended(process)


def trace(folder: Path) -> dict[str, Any]:
    """All that two runs must have in common: SHA-256 of each array at the end, and the metrics."""
    (*_, last) = restoring.steps(folder / "checkpoints")
    listed = manifest.read(folder / "checkpoints" / str(last) / "manifest.json")
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    results = folder / "metrics.json"
    lines += [json.loads(results.read_text())] if results.exists() else []
    timed = ("seconds", "tokens_per_second")
    return {
        "step": last,
        "arrays": listed["arrays"],
        "metrics": [{k: v for k, v in x.items() if k not in timed} for x in lines],
    }


def differing(one: dict[str, Any], other: dict[str, Any]) -> str:
    return "; ".join(manifest.differences(one, other))[:600]


def seeds(name: str, count: int) -> list[random.Random]:
    return [random.Random(f"{name} {n}") for n in range(count)]
