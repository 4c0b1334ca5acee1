"""The whole battery: `make faults`, or `python -m tests.faults [--part NAME ...] [--write MD]`."""

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

# A compiler told to be fast rather than its code, as in the tests: the runs are tiny.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10") else ""),
)

from tests.faults import (
    damage,
    devices,
    disk,
    hostile,
    kills,
    numbers,
    processes,
    skew,
    writers,
)
from tests.faults.harness import Outcome

TERM, INT = signal.SIGTERM, signal.SIGINT
# What each part does in a folder of its own, and how often in the whole battery.
PARTS = {
    "kills": lambda f: kills.at_random_times(f, 200),
    "calls": lambda f: kills.at_system_calls(f, None),
    "truncated": lambda f: damage.truncated(f),
    "flipped": lambda f: damage.flipped(f, 2000),
    "zeroed": lambda f: damage.zeroed(f, 500),
    "deleted": lambda f: damage.deleted(f),
    "full": lambda f: disk.full(f, 30),
    "failing": lambda f: disk.failing(f, 50),
    "term": lambda f: kills.at_random_times(f, 50, (TERM,), "SIGTERM"),
    "int": lambda f: kills.at_random_times(f, 50, (INT,), "SIGINT"),
    "twice": lambda f: kills.at_random_times(f, 50, (TERM, TERM), "SIGTERM twice"),
    "int-twice": lambda f: kills.at_random_times(f, 50, (INT, INT), "SIGINT twice"),
    "writers": lambda f: writers.two(f, 20),
    "devices": lambda f: devices.other(f),
    "skew": lambda f: skew.skewed(f),
    "hostile": lambda f: hostile.hostile(f, 1200),
    "numbers": lambda f: numbers.wrong(f, 60),
    "samples": lambda f: kills.samples(f, 50),
    "failing-save": lambda f: writers.failing(f, 20),
    "equal": lambda f: processes.equal(f),
    "gone": lambda f: processes.gone(f, 20),
    "other": lambda f: processes.other(f, 8),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--part", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--write", help="a Markdown file to write the table to")
    given = parser.parse_args()
    folder, began = Path(tempfile.mkdtemp(prefix="faults")), time.perf_counter()
    rows = []
    for name in given.part:
        start = time.perf_counter()
        outcome = PARTS[name](folder / name)
        seconds = time.perf_counter() - start
        rows.append((outcome, seconds))
        print(f"{name}: {outcome.passed} of {outcome.count} in {seconds:.0f} s: {outcome.detail}")
        sys.stdout.flush()
        shutil.rmtree(folder / name, ignore_errors=True)
    print(f"{(time.perf_counter() - began) / 60:.0f} minutes in all")
    if given.write:
        write(Path(given.write), rows)
    shutil.rmtree(folder, ignore_errors=True)
    if any(outcome.passed < outcome.count for outcome, _ in rows):
        sys.exit("some faults did what they must not do")


HEAD = """# Faults

What was done to runs and to their checkpoints, and what came of it; [runs.md](runs.md) says what
is promised. `make faults` writes this table, `python -m tests.faults --part NAME --write
docs/faults.md` one row of it.

| fault | count | passed | what came of it | seconds | when, and on what |
|---|---|---|---|---|---|
"""


def write(path: Path, rows: list[tuple[Outcome, float]]) -> None:
    """Writes the rows into the table; those of other parts stay."""
    there = path.read_text(encoding="utf-8") if path.exists() else ""
    table = {line.split(" | ")[0]: line for line in there.splitlines() if line.startswith("| ")}
    table.pop("| fault", None)
    when = (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, JAX {version('jax')}, "
        f"Orbax {version('orbax-checkpoint')}"
    )
    for outcome, seconds in rows:
        detail = outcome.detail.replace("|", "\\|").replace("\n", " ")[:300]
        cells = [outcome.fault, f"{outcome.count:,}", f"{outcome.passed:,}", detail]
        line = " | ".join([*cells, f"{seconds:.0f}", when])
        table[f"| {outcome.fault}"] = f"| {line} |"
    path.write_text(HEAD + "\n".join(table.values()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
