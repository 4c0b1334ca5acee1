"""Checkpoints and weight files of one who means harm, read in a process that is watched.

What is asked of the library: an error of its own, or a value that was saved; no code run, nothing
outside its folder touched, memory and time within bounds. It does not tell who wrote a file: one
who computes the hashes of other numbers in a right format has them restored.
"""

import ctypes
import importlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlstm.interop import safetensors
from jaxlstm.train import manifest, restoring
from jaxlstm.train.manifest import CheckpointError
from tests.faults import forger, hostile_checkpoints, hostile_weights, kept, watch
from tests.faults.harness import Failure, Outcome, battery, expect, start

SECONDS = 60.0  # for a trial: the longest manifest that is read, in seven ways, takes 12
# The costliest text of a given length, objects of empty objects, takes 35 times its length in
# Python's objects and copies; manifests are the longest that are read.
MEMORY = 40 * manifest.MOST
RANDOM = 0.2  # of the trials at least are of random changes


def hostile(folder: Path, count: int) -> Outcome:
    """Trials of every case, or of some of them if there are more, and of random changes."""
    folder.mkdir(parents=True, exist_ok=True)
    results, begun = folder / "results.jsonl", folder / "begun"
    results.write_text("")
    names = trials(folder / "outside", count)
    while (done := len(results.read_text().splitlines())) < len(names):
        begun.unlink(missing_ok=True)
        process = start(_run, str(folder), count, done, out=folder / "out.txt")
        code = _wait(process, results, done)
        if code != 0:
            expect(begun.exists(), "no trial began:", (folder / "out.txt").read_text()[-2000:])
            number, said = len(results.read_text().splitlines()), (folder / "out.txt").read_text()
            expect(number < len(names), "after the last trial: exit code", code, said[-2000:])
            why = f"did not end within {SECONDS:.0f} s" if code is None else f"ended with {code}"
            line = {"name": names[number], "word": "", "failure": f"{why}: {said[-600:]}"}
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
    lines = [json.loads(line) for line in results.read_text().splitlines()]

    def attempt(number):
        line = lines[number]
        expect(line["name"] == names[number], "trial", number, "was", line["name"])
        if line["failure"]:
            raise Failure(f"{line['name']}: {line['failure']}")
        return line["word"]

    outcome = battery("hostile checkpoints and weights", range(len(names)), attempt)
    most = max((line.get("grown", 0) for line in lines), default=0)
    slowest = max((line.get("seconds", 0.0) for line in lines), default=0.0)
    cost = f"memory grew by {most >> 20} MB at most; {slowest:.1f} s at most"
    return outcome._replace(detail=f"{outcome.detail}; {cost}")


def trials(outside: Path, count: int) -> list[str]:
    """The names of the trials, the same for each process."""
    known = [*hostile_checkpoints.cases(outside), *hostile_weights.cases(outside)]
    rng = random.Random("hostile")
    most = count - int(RANDOM * count)
    known = known if len(known) <= most else [*map(known.__getitem__, _spread(len(known), most))]
    kinds = ("random checkpoint", "random checkpoint", "random weights")
    more = [f"{rng.choice(kinds)} {number}" for number in range(count - len(known))]
    return known + more


def _spread(length: int, count: int) -> list[int]:
    return [length * number // count for number in range(count)]


def _wait(process: Any, results: Path, done: int) -> int | None:
    """The exit code; None if nothing came of a trial in time, and the process was killed."""
    last, size = time.monotonic() + SECONDS, 0  # it warms up first
    while process.exitcode is None:
        process.join(0.2)
        if (now := results.stat().st_size) != size:
            last, size = time.monotonic(), now
        if process.exitcode is None and time.monotonic() - last > SECONDS:
            process.kill()
            process.join()
            return None
    return process.exitcode


def _run(folder: str, count: int, first: int) -> None:
    """In a process of its own: the trials from one on, each a line of results."""
    place = Path(folder)
    outside, trial = place / "outside", place / "trial"
    template, weights = place / "template", place / "weights.safetensors"
    for path in (outside, trial, template):
        _clear(path)
    hostile_weights.sound(weights) if not weights.exists() else None
    kept.filled(template, 1, 2)
    shutil.copytree(template, outside)
    shutil.copy(weights, outside / "weights")
    baits = kept.content(outside)
    checkpoints, files = hostile_checkpoints.cases(outside), hostile_weights.cases(outside)
    names = trials(outside, count)
    trial.mkdir()

    def one(name: str, watching: watch.Watch | None) -> dict[str, Any]:
        rng = random.Random(name)
        for path in trial.iterdir():
            _clear(path)
        if name in files or name.startswith("random weights"):
            path = Path(shutil.copy(weights, trial / "weights.safetensors"))
            (files.get(name) or hostile_weights.mutated)(
                hostile_weights.Weights(path, outside, rng)
            )
            calls = _of_weights(path)
        else:
            made = kept.renew(trial / "checkpoints", template)
            spoil = checkpoints.get(name) or (lambda f: forger.mutated(f, 3))
            spoil(forger.Forger(made, outside, rng))
            calls = _of_checkpoints(made, name)
        began = time.perf_counter()
        if watching:
            watching.begin()
        said = {key: _tried(call) for key, call in calls.items()}
        seen, grown = watching.end() if watching else ([], 0)
        seconds = time.perf_counter() - began
        failure = "; ".join(seen[:3])
        try:
            words = [_judged(key, *result, name) for key, result in said.items()]
            expect(words[0] == SOUND.get(name, words[0]), "the sound one is", words[0])
            expect(kept.content(outside) == baits, "a file outside is another now")
            expect(grown <= MEMORY, f"memory grew by {grown:,} bytes")
        except Failure as error:
            words, failure = [""], f"{error}; {failure}"
        return {
            **{"name": name, "word": words[0], "failure": failure},
            **{"grown": grown, "seconds": round(seconds, 2)},
        }

    versions = manifest.versions()  # which reads the packages' own files
    manifest.versions = lambda: versions
    for name in WARM:  # whatever is imported and compiled once
        one(name, None)
    watching = watch.Watch(trial, outside)
    watching.limit()
    _check_watch(watching, outside)
    expect(kept.content(outside) == baits, "the baits are others now")
    (place / "begun").touch()
    with (place / "results.jsonl").open("a") as file:
        for name in names[first:]:
            file.write(json.dumps(one(name, watching)) + "\n")
            file.flush()
    sys.stdout.flush()


def _check_watch(watching: watch.Watch, outside: Path) -> None:
    """Failure unless each thing that must not be done is seen when it is."""
    made = outside / "made"
    fresh = next(n for n in ("wave", "sched", "cmd", "plistlib") if n not in sys.modules)
    harm: dict[str, Callable[[], Any]] = {
        "a bait read": lambda: (outside / "LOCK").read_bytes(),
        "a bait listed": lambda: list((outside / "2").iterdir()),
        "a folder made": made.mkdir,
        "a folder renamed": lambda: made.rename(outside / "made2"),
        "a folder deleted": (outside / "made2").rmdir,
        "a file elsewhere opened": lambda: open(os.devnull).close(),
        "code run": lambda: exec("1"),
        "code compiled": lambda: compile("1", "<unknown>", "eval"),
        "a module imported": lambda: importlib.import_module(fresh),
        "a program started": lambda: subprocess.run(["true"], check=True),
        "a shell started": lambda: os.system("true"),
        "a pickle's call": lambda: pickle.loads(pickle.dumps(os.getcwd)),
        "a library loaded": lambda: ctypes.CDLL("libm.so.6"),
    }
    for what, do in harm.items():
        watching.begin()
        do()
        expect(watching.end()[0], what, "is not seen")
    watching.begin()
    taken = bytes(MEMORY + 1) + b"1"
    expect(watching.end()[1] > MEMORY, "memory is not seen", len(taken))
    watching.begin()
    expect(watching.end() == ([], 0), "something is seen where there is nothing")


SOUND = {"as it was": "step 2", "weights: as they were": "loaded whole"}
WARM = (*SOUND, "manifest () = null", "_METADATA is code", "LOCK is folder", "weights: empty")


def _of_checkpoints(folder: Path, name: str) -> dict[str, Callable[[], Any]]:
    """Each way to read a folder, in order; the last one writes."""
    params = kept.like().params

    def written():
        with kept.store(folder, keep=3) as store:
            found = store.restore(kept.like())
            store.save(9, kept.state(9), {"epoch": 9})
        return found, restoring.restore(folder, 9, kept.like())

    return {
        "restore_latest": lambda: restoring.restore_latest(folder, kept.like()),
        "restore": lambda: restoring.restore(folder, 2, kept.like(), kept.IDENTITY),
        "restore_part": lambda: restoring.restore_part(folder, params),
        "restore_part 2": lambda: restoring.restore_part(folder, params, step=2),
        "steps": lambda: restoring.steps(folder),
        "best": lambda: restoring.best(folder),
        "written": written,
        "older": lambda: restoring.restore(folder, 1, kept.like()),
    }


def _of_weights(path: Path) -> dict[str, Callable[[], Any]]:
    return {"load": lambda: safetensors.load(path)}


def _tried(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return call(), None
    except Exception as error:
        # What its frames hold is this battery's to keep, not the library's.
        error.__context__ = error.__cause__ = None
        return None, error.with_traceback(None)


def _judged(key: str, value: Any, error: BaseException | None, name: str) -> str:
    """A word for what came of one way to read; Failure if it is none that may."""
    if key == "load":
        allowed: tuple = (ValueError, FileNotFoundError)
    else:
        # Opening says of a lock or a folder that can't be used what the system says of it.
        allowed = (CheckpointError, OSError) if key == "written" else (CheckpointError,)
    if error is not None:
        expect(isinstance(error, allowed), key, "raised", repr(error)[:300])
        expect(key != "older", "the older one is lost:", error)
        return "refused"
    if key == "load":
        word = hostile_weights.check(value)
        expect(word, "load gave", value)
        return word
    if key in ("steps", "best"):
        number = type(value) is list or value is None or type(value) is int
        expect(number, key, "gave", value)
        return key
    found, last = value if key == "written" else (value, None)
    if last is not None:
        kept.expect_same(last.state, 9)
    if key.startswith("restore_part"):
        kept.expect_equal(found.state, kept.state(found.step).params, key)
    else:
        kept.expect_same(found.state, found.step)
    return f"step {found.step}"


def _clear(path: Path) -> None:
    try:
        kept.clear(path)
    except (RecursionError, OSError):  # folders in folders, deeper than shutil goes
        subprocess.run(["rm", "-rf", str(path)], check=True)
