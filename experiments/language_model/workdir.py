"""The folder of a run: its config and its vocabulary."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from jax.experimental import multihost_utils

from experiments.language_model.config import FREE, OF_ONE, Config
from experiments.language_model.corpus import Data
from jaxlstm.data.text import Vocabulary
from jaxlstm.train import distributed
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
    if stored := claimed(folder):
        if lines := differences(stored["identity"], identity):
            raise ValueError(
                f"{folder} belongs to another configuration:\n"
                + "".join(f"  {line}\n" for line in lines)
                + "use another --workdir, or delete that one"
            )
        return
    inside = [*folder.glob("*"), *(folder / "checkpoints").glob("*")]
    if any(p.name not in BEGUN for p in inside if p != folder / "checkpoints"):
        raise ValueError(f"{folder} is not empty and holds no run; use another --workdir")


def claimed(folder: Path) -> dict[str, Any] | None:
    """The identity and the config of the run in a folder; None if there is none."""
    path = folder / "config.json"
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(stored[name]) for name in ("identity", "config")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); use another --workdir") from error


def agree(folder: Path, config: Config, identity: dict[str, Any]) -> None:
    """Raises ValueError, in all processes, unless they train the same and the folder is theirs.

    The folder is looked at by process 0 alone.
    """
    shared = {k: v for k, v in dataclasses.asdict(config).items() if k not in OF_ONE}
    ours = {**shared, **identity}

    def find():
        check(folder, identity)
        return [], ours

    lines = differences(distributed.told(find, [])[1], ours)
    differ = np.flatnonzero(multihost_utils.process_allgather(np.asarray(bool(lines)))).tolist()
    if lines:
        raise ValueError(
            "this process is to train something else than process 0, which is `there`:\n"
            + "\n".join(f"  {line}" for line in lines)
        )
    if differ:
        raise ValueError(f"processes {differ} are to train something else: they say what")


def claim(folder: Path, identity: dict[str, Any], config: Config, vocabulary: Vocabulary) -> None:
    """Writes down whose a folder is, and the vocabulary; its lock must be held."""
    path = folder / "config.json"
    if not path.exists():
        replace(folder / "vocabulary.json", json.dumps(vocabulary.symbols).encode())
        stored = {"identity": identity, "config": dataclasses.asdict(config)}
        replace(path, json.dumps(stored, indent=1).encode())


def load(folder: Path, argument: str = "--workdir") -> tuple[Config, Vocabulary]:
    """The config and vocabulary of a run.

    Args:
      folder: of the run.
      argument: that it was given by, for the error.

    Raises:
      ValueError: if the folder holds no run.
    """
    try:
        config = Config(
            **json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
        )
        symbols = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{argument}: {folder} holds no run ({error})") from error
    return config, Vocabulary(tuple(symbols))
