"""Many networks at once, each from its own seed: one program trains them until they succeed.

A network that has succeeded is left as it is, while the others go on.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from experiments.long_lags.sequences import Sequence

AT_ONCE = 128  # sequences that networks are examined by: 2,560 of 1,120 steps would be 33 GB


class Learner(NamedTuple):
    """How a network learns.

    Fields:
      init: key -> params.
      outputs: (params, xs, times) -> (K, O).
      start: params -> the optimizer's state.
      learn: (params, the optimizer's state, sequences) -> both after them, and what `last_error`
        was of each, (batch,).
      batch: how many sequences that is.
    """

    init: Callable[[jax.Array], Any]
    outputs: Callable[[Any, jax.Array, jax.Array], jax.Array]
    start: Callable[[Any], Any]
    learn: Callable[[Any, Any, Sequence], tuple[Any, Any, jax.Array]]
    batch: int = 1


class Goal(NamedTuple):
    """When a network has succeeded: of the latest `count` sequences at most `wrong` are wrong.

    A sequence is right if at its end no output is off by more than `bound`. The mean of what they
    are off by, squared unless `power` is 1, is less than `mean` besides, if given. With `begin` the
    first of these `count` sequences is given as the one of success, otherwise the last.
    """

    count: int
    bound: float
    mean: float | None = None
    power: int = 2
    wrong: int = 0
    begin: bool = False


class State(NamedTuple):
    key: jax.Array
    params: Any
    optimizer: Any
    seen: jax.Array  # () sequences
    errors: jax.Array  # (count,) largest error of the latest sequences, in turn
    solved: jax.Array  # () the sequence of success; -1 before


def last_error(outputs: jax.Array, sequence: Sequence) -> jax.Array:
    """By how much an output is off at most, at the last step, from the target without noise."""
    return jnp.abs(outputs[-1] - sequence.clean[-1]).max()


def start(learner: Learner, goal: Goal, key: jax.Array) -> State:
    key, of_params = random.split(key)
    params = learner.init(of_params)
    errors = jnp.full(goal.count, jnp.inf)
    return State(key, params, learner.start(params), jnp.int32(0), errors, jnp.int32(-1))


def train(
    learner: Learner,
    sample: Callable[[jax.Array], Sequence],
    goal: Goal,
    updates: int,
    state: State,
) -> State:
    """Some updates of one network, or none once it has succeeded."""

    def one(state: State, _):
        key, of_sequences = random.split(state.key)
        sequences = jax.vmap(sample)(random.split(of_sequences, learner.batch))
        params, optimizer, errors = learner.learn(state.params, state.optimizer, sequences)
        at = (state.seen + jnp.arange(learner.batch)) % goal.count
        latest = state.errors.at[at].set(errors)
        seen = state.seen + learner.batch
        success = (latest > goal.bound).sum() <= goal.wrong
        if goal.mean is not None:
            success &= (latest**goal.power).mean() < goal.mean
        when = seen - (goal.count - 1 if goal.begin else 0)
        new = State(key, params, optimizer, seen, latest, jnp.where(success, when, -1))
        done = state.solved >= 0
        return jax.tree.map(lambda old, new: jnp.where(done, old, new), state, new), None

    return jax.lax.scan(one, state, None, updates)[0]


def until_solved(
    learner: Learner,
    sample: Callable[[jax.Array], Sequence],
    goal: Goal,
    seeds: int,
    budget: int,
    report: Callable[[str], None] = print,
    every: int = 2000,
) -> State:
    """Trains `seeds` networks until all have succeeded, or have seen `budget` sequences.

    Of batches those that end by then; there is a look at the networks after each `every` sequences.
    """
    keys = random.split(random.key(0), seeds)
    state = jax.vmap(lambda key: start(learner, goal, key))(keys)
    of_each = lambda updates: jax.vmap(lambda s: train(learner, sample, goal, updates, s))
    run = jax.jit(lambda s, updates: of_each(updates)(s), static_argnums=1, donate_argnums=0)
    left, seen, told = budget // learner.batch, 0, 0
    while left and (np.asarray(state.solved) < 0).any():
        updates = min(left, max(1, every // learner.batch))
        state = run(state, updates)
        left -= updates
        seen += updates * learner.batch
        if seen >= 2 * told or not left:
            solved = np.asarray(state.solved) >= 0
            report(f"{seen:,} sequences: {solved.sum()} of {seeds} have succeeded")
            told = seen
    return state


def examine(
    learner: Learner,
    sample: Callable[[jax.Array], Sequence],
    params: Any,
    count: int,
    key: jax.Array,
) -> np.ndarray:
    """The errors of each network on sequences that it has not seen.

    Returns:
      (seeds, count) what `last_error` is.
    """

    def one(params, key):
        sequence = sample(key)
        outputs = learner.outputs(params, sequence.xs, sequence.times)
        return last_error(outputs, sequence)

    of_networks = jax.vmap(one, (0, None))
    of_all = lambda params, keys: jax.lax.map(
        lambda key: of_networks(params, key), keys, batch_size=AT_ONCE
    )
    return np.asarray(jax.jit(of_all)(params, random.split(key, count))).T
