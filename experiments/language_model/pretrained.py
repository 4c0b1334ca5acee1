"""What another run learned, to begin with: its params and its vocabulary."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments.language_model import model, workdir
from experiments.language_model.config import Config
from jaxlstm.data.position import fingerprint
from jaxlstm.data.text import Vocabulary
from jaxlstm.train import restoring
from jaxlstm.train.averaging import evaluated, initial_average


class Pretrained(NamedTuple):
    vocabulary: Vocabulary
    params: model.ModelParams  # NumPy arrays
    fingerprint: str  # of both


def load(config: Config) -> Pretrained:
    """The best checkpoint of the run that a config begins with, or else its newest.

    Raises:
      ValueError: if there is none, or its params are of another model.
    """
    folder = Path(config.begin_with)
    theirs, vocabulary = workdir.load(folder)
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
