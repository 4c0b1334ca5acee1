"""What is in the folder of a run, read without disturbing the run.

`config.json` (`{"identity": {...}, "config": {...}}`), the lines of `metrics.jsonl`, `metrics.json`
if the run has ended, and `checkpoints`, a folder for each with a `manifest.json`, and `LOCK`, which
the run holds while it goes on.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jaxlstm.train import metrics
from jaxlstm.train.lock import holder_of

DEPTH = 3  # of folders in folders that are looked through
TRAIN, VALID = "train_nats", "valid_nats"


class Checkpoint(NamedTuple):
    """A folder of `checkpoints`."""

    name: str  # of the folder: its step, or "120.damaged"
    score: Any = None
    created: Any = None
    complaint: str = ""  # what is amiss


@dataclass(frozen=True)
class Run:
    """A run as it is now.

    Attributes:
      path: of its folder.
      identity: what must be the same for it to be gone on with.
      config: all fields of its configuration.
      history: the lines of its metrics that are no events.
      events: the lines that are.
      result: what `metrics.json` holds; None while the run has not ended.
      checkpoints: oldest first.
      holder: the process that holds its lock; None if none does.
      changed: when anything of it changed last, in seconds since 1970.
      complaints: what could not be read.
    """

    path: Path
    identity: dict[str, Any]
    config: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    checkpoints: list[Checkpoint] = field(default_factory=list)
    holder: int | None = None
    changed: float = 0.0
    complaints: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        if self.holder is not None:
            return "running"
        return "interrupted" if self.result is None else "finished"

    @property
    def steps(self) -> int:
        """Steps done, as far as the lines go."""
        return self.history[-1]["step"] if self.history else 0

    @property
    def all_steps(self) -> int | None:
        """Steps that there are to be; None if the configuration does not say."""
        steps = self.config.get("steps")
        if isinstance(self.result, dict):
            steps = self.result.get("steps", steps)
        return steps if isinstance(steps, int) and steps > 0 else None

    def values(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of each line that has a number of that name."""
        return [(x["step"], x[name]) for x in self.history if is_number(x.get(name))]

    @property
    def last_train(self) -> float | None:
        values = self.values(TRAIN)
        return values[-1][1] if values else None

    @property
    def best_valid(self) -> tuple[int, float] | None:
        """(step, value) of the least loss on the valid text."""
        values = [(step, value) for step, value in self.values(VALID) if not math.isnan(value)]
        return min(values, key=lambda pair: pair[1], default=None)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def find(folder: Path, depth: int = DEPTH) -> tuple[list[Path], list[str]]:
    """The folders of runs in a folder, or the folder itself; and a line on each other folder."""
    try:
        if any(
            (folder / name).exists() for name in ("config.json", "metrics.jsonl", "checkpoints")
        ):
            return [folder], []
        inside = sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    except OSError as error:
        return [], [f"{folder}: can't be read ({error})"]
    runs, others = [], []
    for path in inside if depth else []:
        more, others_there = find(path, depth - 1)
        runs += more
        others += others_there
    return (runs, others) if runs else ([], [f"{folder}: holds no run"])


def read(path: Path) -> Run:
    """The run of a folder.

    Raises:
      ValueError: if the folder holds none, or its configuration can't be read.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder")
    try:
        stored = read_json(path / "config.json")
        identity, config = stored["identity"], stored["config"]
        if not (isinstance(identity, dict) and isinstance(config, dict)):
            raise ValueError("config.json is of something else")
    except FileNotFoundError as error:
        raise ValueError(f"{path}: holds no run (it has no config.json)") from error
    except KeyError as error:
        raise ValueError(f"{path}: holds no run (config.json has no {error})") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: holds no run ({error})") from error
    lines: list[dict[str, Any]] = []
    complaints: list[str] = []
    result = process = None
    try:
        lines, complaints = metrics.read(path / "metrics.jsonl")
    except OSError as error:
        complaints.append(f"{path}: metrics.jsonl can't be read ({error})")
    try:
        result = read_json(path / "metrics.json")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        complaints.append(f"{path}: {error}")
    try:
        process = holder_of(path / "checkpoints" / "LOCK")
    except OSError as error:
        complaints.append(f"{path}: whether it is running can't be said ({error})")
    return Run(
        path=path,
        identity=identity,
        config=config,
        history=[x for x in lines if "event" not in x],
        events=[x for x in lines if "event" in x],
        result=result,
        checkpoints=checkpoints(path / "checkpoints"),
        holder=process,
        changed=last_change(path),
        complaints=complaints,
    )


def read_json(path: Path) -> dict[str, Any]:
    """The names and values of a file.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is damaged or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is of something else")
    return content


def checkpoints(folder: Path) -> list[Checkpoint]:
    """What is in a folder of checkpoints: by step, then those that are none (any more)."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.is_dir():
            continue
        if not path.name.isdecimal():
            found.append(Checkpoint(path.name, complaint="no finished checkpoint"))
            continue
        try:
            manifest = read_json(path / "manifest.json")
            manifest = manifest.get("manifest", manifest)  # inside, if its hash is beside it
            if not isinstance(manifest, dict):
                raise ValueError("manifest.json is of something else")
        except (OSError, ValueError) as error:
            if path.exists():  # unless the run has just deleted it
                found.append(Checkpoint(path.name, complaint=str(error)))
            continue
        complaint = "not finite" if manifest.get("finite") is False else ""
        score, created = manifest.get("score"), manifest.get("created")
        found.append(Checkpoint(path.name, score, created, complaint))
    of_step = lambda c: (0, int(c.name), "") if c.name.isdecimal() else (1, 0, c.name)
    return sorted(found, key=of_step)


def last_change(folder: Path) -> float:
    """When a file of a run changed last, in seconds since 1970."""
    paths = [folder / n for n in ("config.json", "metrics.jsonl", "metrics.json", "checkpoints")]
    return max(path.stat().st_mtime for path in paths if path.exists())
