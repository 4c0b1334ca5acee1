"""The folder of a run: its config, its vocabulary and the lines of its metrics."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from experiments.language_model.config import Config
from jaxlstm.data.text import Vocabulary


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    beside = path.with_name(path.name + ".writing")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def claim(folder: Path, identity: dict[str, Any], config: Config, vocabulary: Vocabulary) -> None:
    """Makes the folder, or checks that it is of the same run.

    Raises:
      ValueError: if it belongs to another configuration, saying what differs, or is in use
        for something else.
    """
    path = folder / "config.json"
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); use another --workdir") from error
        names = sorted(set(there) | set(identity))
        differ = [n for n in names if there.get(n) != identity.get(n)]
        if differ:
            lines = (f"  {n}: {there.get(n)!r} there, {identity.get(n)!r} here" for n in differ)
            raise ValueError(
                f"{folder} belongs to another configuration:\n" + "\n".join(lines) + "\n"
                "use another --workdir, or delete that one"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no run; use another --workdir")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "vocabulary.json", json.dumps(vocabulary.symbols))
    stored = {"identity": identity, "config": dataclasses.asdict(config)}
    write(path, json.dumps(stored, indent=1))


def load(folder: Path) -> tuple[Config, Vocabulary]:
    """The config and vocabulary of a run.

    Raises:
      ValueError: if the folder holds no run.
    """
    try:
        config = Config(
            **json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
        )
        symbols = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--workdir: {folder} holds no run ({error})") from error
    return config, Vocabulary(tuple(symbols))


class Metrics:
    """The lines of metrics.jsonl."""

    def __init__(self, path: Path):
        self._path = path

    def lines(self) -> list[dict[str, Any]]:
        """What is there; a last line that was cut off while it was written is not."""
        if not self._path.exists():
            return []
        out = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                out.append(json.loads(line))
            except ValueError:
                break
        return out

    def cut(self, step: int) -> None:
        """Takes away the lines after a step, which will be made again."""
        kept = [line for line in self.lines() if line["step"] <= step]
        write(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, line: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
