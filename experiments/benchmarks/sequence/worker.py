"""A contender's process: commands in as JSON lines on stdin, answers out on stdout.

Between commands it waits for its input and does nothing. It ends when its input does.
"""

import ctypes
import gc
import importlib
import json
import math
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.sequence import limit
from experiments.benchmarks.sequence.cases import COMPILE, Case, inputs
from experiments.benchmarks.sequence.contenders import module_and_variant

WARM = 0.03  # seconds of calls before those that are timed: threads find their processors again
LEAST = 2e-3  # seconds: a turn of a call that is shorter has as many as fill them


def status(field: str) -> float:
    """MiB of a line of /proc/self/status, VmRSS or VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def peak_of(call: Any) -> tuple[Any, float | None]:
    """What a call gives, and the MiB that it held at most beside what was held before.

    None where the system does not tell (Linux does).
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is as of now
        before = status("VmRSS")
    except (OSError, AttributeError):
        return call(), None
    result = call()
    return result, status("VmHWM") - before


class Worker:
    def __init__(self, name: str):
        module, self.variant = module_and_variant(name)
        self.torch = module == "torch"
        path = f"experiments.benchmarks.sequence.peers.{module}"
        self.build = importlib.import_module(path).build
        self.program: Any = None
        self.calls, self.compiling = 1, False

    def prepare(self, case: dict[str, Any], results: str) -> dict[str, Any]:
        """Compiles a case, calls it, and writes what it gives."""
        self.forget()
        made = Case(case["row"], tuple(case["shape"]), case["what"])
        self.program = program = self.build(made, inputs(made), self.variant)
        result, peak = peak_of(program.call)
        arrays = program.arrays(result)
        del result
        np.savez(results, **arrays)
        began = time.perf_counter()
        program.call()
        seconds = time.perf_counter() - began
        self.compiling = made.what == COMPILE
        self.calls = 1 if self.compiling else math.ceil(LEAST / max(seconds, 1e-6))
        return {"compile_seconds": program.compile_seconds, "peak_mib": peak, "calls": self.calls}

    def turn(self) -> dict[str, Any]:
        """The seconds of a call, or of one of several if it is short, after some not timed."""
        if self.compiling:
            return {"seconds": self.program.compile()}
        call = self.program.call
        began = time.perf_counter()
        while time.perf_counter() - began < WARM:
            call()
        began = time.perf_counter()
        for _ in range(self.calls):
            call()
        return {"seconds": (time.perf_counter() - began) / self.calls}

    def product(self, size: int, calls: int) -> dict[str, Any]:
        library = "torch" if self.torch else "jax"
        return {"gflops": limit.product(library, size, calls)}

    def forget(self) -> dict[str, Any]:
        self.program = None
        gc.collect()
        return {}


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    say = lambda answer: print(json.dumps(answer), file=answers, flush=True)
    worker = Worker(name)
    say({"ready": True})
    for line in sys.stdin:
        command = json.loads(line)
        try:
            say(getattr(worker, command.pop("do"))(**command))
        except Exception as error:
            traceback.print_exc()
            say({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main(sys.argv[1])
