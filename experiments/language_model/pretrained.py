"""What another run learned, to begin with: its params and its vocabulary."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.language_model import model, workdir
from experiments.language_model.config import Config
from jaxlstm.data.position import fingerprint
from jaxlstm.data.text import Vocabulary
from jaxlstm.train import distributed, restoring
from jaxlstm.train.averaging import evaluated, initial_average


class Pretrained(NamedTuple):
    vocabulary: Vocabulary
    params: model.ModelParams | None  # NumPy arrays; None where a checkpoint has newer ones
    fingerprint: str  # of both


def load(config: Config, place: Path) -> Pretrained:
    """What the run in `place` begins with, or began with: then the other one may be gone.

    Several processes call this together; only process 0 looks at `place`.

    Raises:
      ValueError: if there is no sound checkpoint to begin with, its params are of another model,
        or it is another one than the run began with, and they are still needed.
    """
    began = distributed.told(lambda: ([], _began(config, place)), [])[1]
    if began and began["has_checkpoint"]:
        return Pretrained(Vocabulary(tuple(began["symbols"])), None, began["learned"])
    found = read(config)
    if began and found.fingerprint != began["learned"]:
        raise ValueError(
            f"--begin-with: {config.begin_with} has changed since {place} began with it, and there "
            "is no checkpoint yet; use another --workdir, or delete that one"
        )
    return found


def _began(config: Config, place: Path) -> dict[str, Any]:
    """What the run in a folder began with, if it names the same folder as the config."""
    stored = workdir.claimed(place)
    if not stored or stored["config"].get("begin_with") != config.begin_with:
        return {}
    _, vocabulary = workdir.load(place)
    return {
        "learned": stored["identity"].get("learned"),
        "symbols": vocabulary.symbols,
        "has_checkpoint": bool(restoring.steps(place / "checkpoints")),
    }


def read(config: Config) -> Pretrained:
    """The best checkpoint of the run that a config begins with, or else its newest."""
    folder = Path(config.begin_with)
    theirs, vocabulary = workdir.load(folder, "--begin-with")
    if theirs.level != config.level:
        raise ValueError(
            f"--begin-with: {folder} is of level {theirs.level}, not of {config.level}"
        )
    params, _ = params_of(theirs, vocabulary, folder / "checkpoints", "best", config)
    symbols = np.frombuffer("\0".join(vocabulary.symbols).encode(), np.uint8)
    learned = fingerprint(symbols, *map(np.asarray, jax.tree.leaves(params)))
    return Pretrained(vocabulary, params, learned)


def params_of(
    config: Config, vocabulary: Vocabulary, folder: Path, which: str, wanted: Config | None = None
) -> tuple[model.ModelParams, list[str]]:
    """The params of the `latest` or `best` sound checkpoint, and what is wrong with newer ones.

    Those of NT-ASGD are the mean, once it has begun.
    """
    key = jax.random.key(0)
    like = jax.eval_shape(partial(model.init, wanted or config, symbols=len(vocabulary)), key)
    step = restoring.best(folder) if which == "best" else None
    found = restoring.restore_part(folder, like, step=step)
    params = found.state
    if config.optimizer == "ntasgd":
        part = jax.eval_shape(initial_average, like)
        average = restoring.restore_part(folder, part, "average", found.step).state
        params = evaluated(average, params)
    return params, found.warnings
