"""What a run found: kept as JSON, and all of it as a page."""

import hashlib
import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

HERE = Path(__file__).parent
FOLDER = HERE / "results"
PAGE = HERE.parents[1] / "docs" / "long_lags.md"
FOUND = ("experiments/long_lags/results", "docs/long_lags.md")  # which no run reads


class Options(NamedTuple):
    """What the command line may change of any task."""

    quick: bool = False
    seeds: int = 0  # 0: as many as the paper has
    budget: int = 0  # sequences, steps or updates, as the task counts; 0: its own
    data: str = ""  # a folder, of tasks that read any
    keep: str = ""  # a folder, of tasks that go on after they were killed


class Found(NamedTuple):
    """A row of the page, in words, and the numbers that it was made of."""

    title: str
    source: str
    paper: str
    accept: str
    ours: str
    floor: str
    passed: bool | None  # None: nothing was asked of this form
    seeds: int
    numbers: dict[str, Any]
    before: tuple[float, float] = (0.0, 0.0)  # seconds of processes that were killed, and CPU's


def counted(solved: np.ndarray, what: str = "sequences") -> str:
    """How many of the seeds succeeded, and after how many sequences; -1 is a failure."""
    done = solved[solved >= 0]
    words = f"{len(done)} of {len(solved)} seeds"
    return f"{words}, {done.mean():,.0f} ± {done.std():,.0f} {what}" if len(done) else words


def spread(values: np.ndarray, form: str) -> str:
    """The mean ± standard deviation over the seeds, as `form` has numbers; of one, itself."""
    mean = form.format(values.mean())
    return f"{mean} ± {form.format(values.std())}" if len(values) > 1 else mean


def at_least(options: Options, least: int, otherwise: int, what: str) -> int:
    """The budget that is asked for, or another; a ValueError if nothing would be tested by then."""
    budget = options.budget or (least if options.quick else otherwise)
    if budget < least:
        raise ValueError(f"--budget: expected at least {least:,} {what}, got {budget:,}")
    return budget


def record(
    task: str, form: str, found: Found, seconds: tuple[float, float], command: str, code: str
) -> dict[str, Any]:
    """Everything that there is to say of a run, as JSON.

    `seconds` are those of wall and CPU, `code` the commit that ran.
    """
    return {
        "task": task,
        "form": form,
        **{name: value for name, value in found._asdict().items() if name != "before"},
        "seconds": round(seconds[0] + found.before[0]),
        "cpu_seconds": round(seconds[1] + found.before[1]),
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "commit": code,
        "device": f"{platform.machine()}, {jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }


def commit(folder: Path = HERE) -> str:
    """The commit that is checked out; "" if none is.

    With a + and some digits of their hash if there are changes besides, but to what runs found.
    """
    git = ["git", "-C", str(folder)]
    others = ["--", ":/", *(f":(top,exclude){path}" for path in FOUND)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True)
        changes = subprocess.run([*git, "diff", "HEAD", *others], capture_output=True).stdout
    except OSError:
        return ""
    if head.returncode:
        return ""
    return head.stdout.decode().strip() + (
        "+" + hashlib.sha256(changes).hexdigest()[:7] if changes else ""
    )


def save(result: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['task']}.{result['form']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def command_of(task: str, form: str) -> str | None:
    """What made the kept result of a task's form, None if there is none."""
    path = FOLDER / f"{task}.{form}.json"
    return json.loads(path.read_text("utf-8"))["command"] if path.exists() else None


def read(folder: Path, order: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """What `save` has kept, in the order of tasks and forms; a ValueError if that is nothing."""
    found = {path.name: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    if not found:
        raise ValueError(f"--out: there are no results in {folder}")
    for name, result in found.items():
        if (result.get("task"), result.get("form")) not in order:
            raise ValueError(f"--out: {name} in {folder} is of no task that there is")
    return sorted(found.values(), key=lambda r: order.index((r["task"], r["form"])))


HEAD = """# Long time lags, reproduced

What `python -m experiments.long_lags TASK` found, one row for each task and form that was run;
written by `python -m experiments.long_lags page` from the JSON of the runs. "Paper" is what the
source prints, "ours" the mean ± standard deviation over seeds. Seconds are those of the clock, with
other runs beside or halted for others, and of the CPU; more than half an hour is in bold. All
{count} rows took {hours:.1f} hours of CPU, one core each. The commit is that of the run, with a +
if it had changes besides; some rows' words (task, source, asked) and floors were put in order
after it. What was tried where something was not reached is in [the README of the
experiments](../experiments/long_lags/README.md). Run on: {machines}.

| task | form | source | paper | asked | ours | | floor | seconds, CPU | command, date, commit |
|---|---|---|---|---|---|---|---|---|---|
"""


def page(results: list[dict[str, Any]]) -> str:
    """The page of docs/, of results in the order that they are to stand."""
    machines = sorted({_machine(r) for r in results})
    passed = {True: "reached", False: "**not reached**", None: ""}
    rows = []
    for r in results:
        clock = f"**{r['seconds']:,}**" if r["seconds"] > 1800 else f"{r['seconds']:,}"
        seconds = f"{clock}, {r['cpu_seconds']:,}"
        run = f"`{r['command']}`, {r['date']}, {r['commit']}"
        cells = [
            r["title"],
            r["form"],
            r["source"],
            r["paper"],
            r["accept"] if r["passed"] is not None else "",
        ]
        ours = r["ours"] if "seed" in r["ours"] else f"{r['ours']}; seeds: {r['seeds']}"
        cells += [ours, passed[r["passed"]], r["floor"], seconds, run]
        rows.append("| " + " | ".join(cells) + " |\n")
    hours = sum(r["cpu_seconds"] for r in results) / 3600
    head = HEAD.format(machines="; ".join(machines), count=len(results), hours=hours)
    return head + "".join(rows)


def _machine(result: dict[str, Any]) -> str:
    versions = result["versions"]
    return f"{result['device']}, Python {versions['python']}, JAX {versions['jax']}"
