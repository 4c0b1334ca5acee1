"""Runs as plain text: a table of several, and all about one."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from experiments.runs.folder import Run, is_number

NAMED = 4  # fields at most that tell the runs of a list apart
ROWS = 20  # of a history
COLUMNS = 8  # of a history
WIDTH = 40  # characters of a field in a table of runs


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, two spaces apart; those of numbers to the right.

    Example:
      >>> print(table(["run", "steps"], [["a", "5"], ["bb", "1,000"]]))
      run  steps
      a        5
      bb   1,000
    """
    columns = list(zip(header, *rows, strict=True))
    aligned = []
    for column in columns:
        width = max(map(len, column))
        is_right = rows and all(_looks_like_a_number(text) for text in column[1:])
        aligned.append([x.rjust(width) if is_right else x.ljust(width) for x in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*aligned, strict=True))


def _looks_like_a_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return text in ("", "-")
    return True


def cell(value: Any) -> str:
    """A value as the text of a cell, on one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return printable(text)


def short(value: Any) -> str:
    """The end of it, where a text is too long for a table of runs."""
    text = cell(value)
    return text if len(text) <= WIDTH else "…" + text[1 - WIDTH :]


def printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def measure(value: Any) -> str:
    """A measured value: as a cell, but with four decimals wherever they say something."""
    if not isinstance(value, float) or 0 < abs(value) < 0.01 or abs(value) >= 1e9:
        return cell(value)
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4f}"


def moment(value: Any) -> str:
    """A time, given in seconds since 1970 or as ISO 8601 has it, in the local zone."""
    try:
        at = datetime.fromtimestamp(value) if is_number(value) else datetime.fromisoformat(value)
        return at.astimezone().strftime("%Y-%m-%d %H:%M")
    except (TypeError, ValueError, OverflowError, OSError):
        return cell(value)


def describe(runs: Sequence[Run]) -> list[str]:
    """For each run, the fields of its configuration that tell it from the others.

    At most `NAMED` of them, chosen one after another so as to tell the most runs apart, then to
    have the most values. Fields that are not in the identity make no difference to a run.
    """
    fields = dict.fromkeys(name for run in runs for name in run.config if name in run.identity)
    values = {n: [json.dumps(run.config.get(n), default=str) for run in runs] for n in fields}
    left = [name for name in fields if len(set(values[name])) > 1]
    chosen: list[str] = []
    while left and len(chosen) < NAMED:
        gain = lambda n: (_kinds(values, [*chosen, n]), _kinds(values, [n]))
        chosen.append(max(left, key=gain))
        left.remove(chosen[-1])
    shown = [name for name in fields if name in chosen]
    return [
        " ".join(f"{n}={short(run.config[n])}" for n in shown if n in run.config) or "-"
        for run in runs
    ]


def _kinds(values: dict[str, list[str]], names: list[str]) -> int:
    """How many kinds of runs there are by these fields."""
    return len(set(zip(*(values[name] for name in names), strict=True)))


def steps(run: Run) -> str:
    return f"{run.steps:,}" + (f" of {run.all_steps:,}" if run.all_steps else "")


def several(runs: Sequence[Run]) -> str:
    """A table of runs."""
    header = ["run", "config", "steps", "train", "best valid", "state", "last change"]
    rows = []
    for run, description in zip(runs, describe(runs), strict=True):
        valid = run.best_valid and run.best_valid[1]
        rows.append([
            printable(str(run.path)), description, steps(run), measure(run.last_train),
            measure(valid), run.state, moment(run.changed),
        ])  # fmt: skip
    return table(header, rows)


def one(run: Run) -> str:
    """All about a run: its config, history, events, checkpoints and result."""
    state = run.state + (f" (process {run.holder})" if run.holder else "")
    head = f"{run.path}: {state}, {steps(run)} steps, last change {moment(run.changed)}"
    if run.best_valid:
        step, value = run.best_valid
        head += f"\nbest valid: {measure(value)} at step {step:,}"
    beside = {n: v for n, v in run.identity.items() if run.config.get(n) != v}
    sections = [
        head,
        _section("config", _pairs(run.config)),
        _section("identity, where it says more", _pairs(beside)),
        _history(run.history),
        _events(run.events),
        _checkpoints(run),
        _section("result", _pairs(_flat(run.result or {}))),
    ]
    return "\n\n".join(section for section in sections if section)


def thinned(lines: Sequence[dict[str, Any]], rows: int = ROWS) -> list[dict[str, Any]]:
    """At most that many lines, first and last among them: those with the most fields first."""
    most = max((len(line) for line in lines), default=0)
    full = [n for n, line in enumerate(lines) if len(line) == most]
    rest = [n for n, line in enumerate(lines) if len(line) < most]
    chosen = _spread(full, rows - min(2, len(rest)))
    return [lines[n] for n in sorted(chosen + _spread(rest, rows - len(chosen)))]


def _spread(items: list[int], count: int) -> list[int]:
    if len(items) <= count:
        return items
    if count < 2:
        return items[len(items) - count :]
    return [items[round(k * (len(items) - 1) / (count - 1))] for k in range(count)]


def _section(title: str, body: str) -> str:
    return f"{title}\n{body}" if body else ""


def _pairs(values: dict[str, Any]) -> str:
    width = max(map(len, values), default=0)
    return "\n".join(f"  {name:{width}}  {cell(value)}" for name, value in values.items())


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= (
            _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
        )
    return flat


def _indented(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("  " + line for line in table(header, rows).split("\n"))


def _history(lines: list[dict[str, Any]]) -> str:
    chosen = thinned(lines)
    names = list(dict.fromkeys(name for line in lines for name in line))
    left = f", without {', '.join(names[COLUMNS:])}" if len(names) > COLUMNS else ""
    names = names[:COLUMNS]
    rows = [[measure(line[n]) if n in line else "" for n in names] for line in chosen]
    title = f"history, {len(chosen)} of {len(lines):,} lines{left}"
    return _section(title, _indented(names, rows)) if lines else "history: none"


def _events(lines: list[dict[str, Any]]) -> str:
    rows = []
    for line in lines:
        rest = {n: v for n, v in line.items() if n not in ("step", "event")}
        detail = " ".join(f"{name}={cell(value)}" for name, value in rest.items())
        rows.append([cell(line["step"]), cell(line["event"]), detail])
    return (
        _section("events", _indented(["step", "event", "with"], rows)) if rows else "events: none"
    )


def _checkpoints(run: Run) -> str:
    rows = []
    for c in run.checkpoints:
        name = f"{int(c.name):,}" if c.name.isdecimal() else c.name
        rows.append([name, measure(c.score), moment(c.created), c.complaint])
    header = ["step", "score", "created", ""]
    return _section("checkpoints", _indented(header, rows)) if rows else "checkpoints: none"
