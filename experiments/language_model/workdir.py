"""The folder of a run: its config and its vocabulary."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from experiments.language_model.config import FREE, Config
from experiments.language_model.corpus import Data
from jaxlstm.data.text import Vocabulary
from jaxlstm.train.manifest import differences


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    beside = path.with_name(path.name + ".writing")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def claim(folder: Path, config: Config, data: Data) -> dict[str, Any]:
    """Makes the folder, or checks that it is of the same run; returns what tells it from others.

    Raises:
      ValueError: if it belongs to another configuration, saying what differs, or is in use
        for something else.
    """
    fields = {k: v for k, v in dataclasses.asdict(config).items() if k not in FREE}
    identity = {**fields, "text": data.fingerprint}
    path = folder / "config.json"
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); use another --workdir") from error
        if lines := differences(there, identity):
            raise ValueError(
                f"{folder} belongs to another configuration:\n"
                + "".join(f"  {line}\n" for line in lines)
                + "use another --workdir, or delete that one"
            )
        return identity
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no run; use another --workdir")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "vocabulary.json", json.dumps(data.vocabulary.symbols))
    stored = {"identity": identity, "config": dataclasses.asdict(config)}
    write(path, json.dumps(stored, indent=1))
    return identity


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
