"""Learning from strings of many lengths, and which share of strings of each length is right."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

import jaxlstm as jl
from experiments.long_lags import supervised
from experiments.long_lags.languages import Language

SHORT = 40  # symbols of a string to learn from, at most
BATCH, CLIP, EVERY = 32, 1.0, 1000


class Way(NamedTuple):
    """How a layer of cells and a linear readout learn, by Adam; the rate falls to zero."""

    units: int
    rate: float
    updates: int
    forget_bias: float | None = None  # at the start, of cells with gates i, f, g, o


class Batch(NamedTuple):
    xs: jax.Array  # (T, B) symbols
    targets: jax.Array  # (T, B, O)
    lengths: jax.Array  # (B,)


def draw(language: Language, key: jax.Array, lengths: jax.Array, time: int) -> Batch:
    """Strings of given lengths (B,), of which none is longer than `time`."""
    of_each = jax.vmap(lambda key, length: language.sample(key, length, time), out_axes=1)
    xs, targets = of_each(random.split(key, len(lengths)), lengths)
    return Batch(xs, targets, lengths)


def short(language: Language, key: jax.Array, count: int = BATCH) -> Batch:
    """Strings to learn from: all lengths up to SHORT that there are, equally often."""
    of_lengths, of_strings = random.split(key)
    units = random.randint(of_lengths, (count,), 1, SHORT // language.unit + 1)
    return draw(language, of_strings, language.unit * units, SHORT)


def init(language: Language, cell: jl.Cell, way: Way, key: jax.Array) -> Any:
    """The cell's params, and weights and biases of the readout."""
    of_cell, of_output = random.split(key)
    w = random.normal(of_output, (way.units, language.outputs)) / way.units**0.5
    rnn = cell.init(of_cell, jnp.zeros(language.symbols))
    if way.forget_bias is not None:
        rnn = rnn._replace(b=rnn.b.at[1].set(way.forget_bias))
    return rnn, w, jnp.zeros(language.outputs)


def logits(language: Language, cell: jl.Cell, params: Any, batch: Batch) -> jax.Array:
    """(T, B, O), of the padding too."""
    rnn, w, b = params
    xs = jax.nn.one_hot(batch.xs, language.symbols, dtype=w.dtype)
    return jl.scan(cell, rnn, xs)[1] @ w + b


def scored(language: Language, batch: Batch) -> jax.Array:
    """(T, B) whether something is to be said after this symbol."""
    t = jnp.arange(len(batch.xs))[:, None]
    return t == batch.lengths - 1 if language.last else t < batch.lengths


def loss(language: Language, y: jax.Array, batch: Batch) -> jax.Array:
    """The cross-entropy of what is scored, of classes, or of each symbol of a set; its mean."""
    if language.last:
        each = optax.softmax_cross_entropy(y, batch.targets)
    else:
        each = optax.sigmoid_binary_cross_entropy(y, batch.targets).sum(-1)
    counts = scored(language, batch)
    return (each * counts).sum() / counts.sum()


def right(language: Language, y: jax.Array, batch: Batch) -> jax.Array:
    """(B,) whether a string is right wherever it is scored: the class, or all of each set."""
    if language.last:
        same = y.argmax(-1) == batch.targets.argmax(-1)
    else:
        same = ((y > 0) == (batch.targets > 0)).all(-1)
    return (same | ~scored(language, batch)).all(0)


def learn(
    language: Language,
    cell: jl.Cell,
    way: Way,
    seeds: int,
    report: Callable[[str], None] = print,
) -> Any:
    """Trains networks from `seeds` seeds, each on strings of its own.

    Returns:
      Their params, stacked.
    """

    def objective(params, batch, key):
        return loss(language, logits(language, cell, params, batch), batch)

    def look(done, trained, losses):
        said = " ".join(f"{value:.1e}" for value in np.asarray(losses))
        report(f"{done:,} updates: loss {said}")

    rate = optax.linear_schedule(way.rate, 0.0, way.updates)
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(rate))
    return supervised.fit(
        lambda key: init(language, cell, way, key),
        objective,
        lambda key: short(language, key),
        optimizer,
        seeds=seeds,
        updates=way.updates,
        every=EVERY,
        look=look,
    ).params


def lengths_of(language: Language, first: int, last: int) -> np.ndarray:
    """All lengths that there are from `first` to `last`."""
    return np.array([n for n in range(first, last + 1) if n % language.unit == 0])


def by_length(
    language: Language, cell: jl.Cell, params: Any, lengths: np.ndarray, each: int
) -> np.ndarray:
    """The share of strings that are right.

    Args:
      language: whose strings.
      cell: the cell.
      params: of all seeds, stacked.
      lengths: (N,) of the strings.
      each: strings of each length.

    Returns:
      (seeds, N).
    """

    def one(key):
        batch = draw(language, key, jnp.asarray(lengths), int(lengths.max()))
        of_seed = lambda p: right(language, logits(language, cell, p, batch), batch)
        return jax.lax.map(of_seed, params)

    of_all = jax.jit(lambda keys: jax.lax.map(one, keys).mean(0))
    return np.asarray(of_all(random.split(random.key(1), each)), float)


def constant(language: Language, lengths: np.ndarray, each: int) -> float:
    """The share of strings that are right if the answer is always the most frequent one."""

    def one(key):
        batch = draw(language, key, jnp.asarray(lengths), int(lengths.max()))
        return batch.targets, scored(language, batch)

    targets, counts = map(np.asarray, jax.jit(jax.vmap(one))(random.split(random.key(1), each)))
    answers, often = np.unique(targets[counts], axis=0, return_counts=True)
    same = (targets == answers[often.argmax()]).all(-1)
    return float((same | ~counts).all(1).mean())
