"""The contenders' processes, and their turns."""

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.sequence import limit
from experiments.benchmarks.sequence.cases import COMPILE, Case
from experiments.benchmarks.sequence.compare import check_same
from experiments.benchmarks.sequence.contenders import environment

ROOT = Path(__file__).resolve().parents[3]
WARM_UP = 2  # rounds before those that count
COMPILATIONS = 5  # rounds of compiling, at most
PAUSE = 0.02  # seconds between turns: PyTorch's threads go to sleep 10 ms after their last work


class Failed(Exception):
    """A contender said that it can't, or its process ended."""


class Process:
    """A contender in a process of its own."""

    def __init__(self, name: str, folder: Path, timeout: float):
        self.name, self.timeout = name, timeout
        self.log = folder / f"{name.replace(':', '-')}.log"
        command = [sys.executable, "-m", "experiments.benchmarks.sequence.worker", name]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment(name, limit.cores()),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def hear(self) -> dict[str, Any]:
        """The next answer.

        Raises:
          Failed: if there is none in time, or it is an error.
        """
        clock = threading.Timer(self.timeout, self.process.kill)
        clock.start()
        line = self.process.stdout.readline()
        clock.cancel()
        if not line:
            code, said = self.process.wait(), self.log.read_text().strip().splitlines()
            raise Failed(f"its process ended ({code}): {said[-1] if said else 'no message'}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"].splitlines()[0][:300])
        return answer

    def ask(self, do: str, **command: Any) -> dict[str, Any]:
        with contextlib.suppress(OSError):  # it has ended, and `hear` says so
            self.process.stdin.write(json.dumps({"do": do, **command}) + "\n")
            self.process.stdin.flush()
        return self.hear()

    def alive(self) -> bool:
        return self.process.poll() is None

    def busy_seconds(self) -> float:
        """Processor time that it has used; 0 where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a pipe whose other end is gone
            self.process.stdin.close()
        if self.alive():
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()


class Processes(dict[str, Process]):
    """Contenders by name, all started at once; those that could not are in `failed`."""

    def __init__(self, names: Iterable[str], timeout: float):
        self.folder = tempfile.TemporaryDirectory()
        self.failed: dict[str, str] = {}
        self.everyone = [Process(name, Path(self.folder.name), timeout) for name in names]
        for process in self.everyone:
            try:
                process.hear()
                self[process.name] = process
            except Failed as error:
                self.failed[process.name] = f"can't start, {error}"

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self.everyone:
            process.close()
        self.folder.cleanup()

    def prepare(self, names: Iterable[str], case: Case) -> dict[str, dict[str, Any]]:
        """What each says of a case, its numbers compared to those of the first that has any."""
        said: dict[str, dict[str, Any]] = {}
        expected = None
        path = Path(self.folder.name) / "results.npz"
        for name in names:
            try:
                answer = self[name].ask("prepare", case=case._asdict(), results=str(path))
                with np.load(path) as file:
                    got = dict(file)
                expected = got if expected is None else expected
                said[name] = answer | {"difference": check_same(got, expected)}
            except (Failed, ValueError) as error:
                said[name] = {"error": str(error)}
        return said

    def idle(self, names: Iterable[str], seconds: float = 0.2) -> dict[str, float]:
        """The share of a core that each uses while nobody asks it for anything."""
        before = {name: self[name].busy_seconds() for name in names}
        time.sleep(seconds)
        return {name: (self[name].busy_seconds() - b) / seconds for name, b in before.items()}

    def others_seconds(self) -> float:
        """Processor time of what is neither a contender nor this process."""
        ours = sum(process.busy_seconds() for process in self.everyone)
        return limit.busy_seconds() - ours - time.process_time()

    def measure(self, names: Iterable[str], case: Case, rounds: int) -> dict[str, Any]:
        """A case by all contenders in turns.

        Returns:
          `contenders`, each one's seconds or its error, and `others_busy`, the share of the cores
          that other processes used meanwhile.
        """
        said = self.prepare(names, case)
        seconds: dict[str, list[float]] = {n: [] for n in said if "error" not in said[n]}
        rounds = min(rounds, COMPILATIONS) if case.what == COMPILE else rounds
        order, began, used = random.Random(0), time.perf_counter(), self.others_seconds()
        for number in range(rounds + (0 if case.what == COMPILE else WARM_UP)):
            for name in order.sample(list(seconds), len(seconds)):
                try:
                    turn = self[name].ask("turn")["seconds"]
                except Failed as error:
                    said[name] = {"error": str(error)}
                    del seconds[name]
                    continue
                if case.what == COMPILE or number >= WARM_UP:
                    seconds[name].append(turn)
                time.sleep(PAUSE)
        used = (self.others_seconds() - used) / (time.perf_counter() - began) / limit.cores()
        idle = self.idle(seconds)
        for name, turns in seconds.items():
            quartiles = statistics.quantiles(turns, n=4, method="inclusive") if turns[1:] else turns
            said[name] |= {"seconds": turns, "median": statistics.median(turns)}
            said[name] |= {"quartiles": [quartiles[0], quartiles[-1]], "idle": idle[name]}
        for name in said:
            if self[name].alive():
                self[name].ask("forget")
            else:
                self.failed[name] = said[name]["error"]
                del self[name]
        return {"contenders": said, "others_busy": max(0.0, used)}
