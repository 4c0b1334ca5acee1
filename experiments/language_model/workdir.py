"""The folder of a run: its config and its vocabulary."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from experiments.language_model.config import FREE, Config
from experiments.language_model.corpus import Data
from jaxlstm.data.text import Vocabulary
from jaxlstm.train.files import replace
from jaxlstm.train.manifest import differences

# What a run that was killed while it claimed its folder may have left there.
BEGUN = {"vocabulary.json", "vocabulary.json.writing", "config.json.writing", "LOCK"}


def identity(config: Config, data: Data, learned: str) -> dict[str, Any]:
    """What tells a run from others; `learned` is the fingerprint of what it begins with."""
    fields = {k: v for k, v in dataclasses.asdict(config).items() if k not in FREE}
    return {**fields, "text": data.fingerprint, "learned": learned}


def check(folder: Path, identity: dict[str, Any]) -> None:
    """Raises ValueError if a folder belongs to another run, or is in use for something else."""
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
        return
    inside = [*folder.glob("*"), *(folder / "checkpoints").glob("*")]
    if any(p.name not in BEGUN for p in inside if p != folder / "checkpoints"):
        raise ValueError(f"{folder} is not empty and holds no run; use another --workdir")


def claim(folder: Path, identity: dict[str, Any], config: Config, vocabulary: Vocabulary) -> None:
    """Writes down whose a folder is, and the vocabulary; its lock must be held."""
    path = folder / "config.json"
    if not path.exists():
        replace(folder / "vocabulary.json", json.dumps(vocabulary.symbols).encode())
        stored = {"identity": identity, "config": dataclasses.asdict(config)}
        replace(path, json.dumps(stored, indent=1).encode())


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
