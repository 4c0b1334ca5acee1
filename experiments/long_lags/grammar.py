"""Embedded Reber strings: Hochreiter and Schmidhuber 1997, section 5.1.

    python -m experiments.long_lags reber --form 1997

256 random strings to learn from, one after another at random, and 256 of a test, drawn likewise: as
short ones are likely, 194 of these in the mean are among the first too. 3 blocks of 2 cells, 276
weights, a rate of 0.5, output gates' biases of -1, -2 and -3. A network has succeeded when on all
512 and at every step the symbols that may come are the most active outputs.

Result: 14 of 30 networks succeed in the paper's form, where all do in the paper; 28 of 30 in
today's, after 4,311 strings. More of it: docs/long_lags.md.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.long_lags import reber
from experiments.long_lags.blocks import Net
from experiments.long_lags.learners import modern, of_1997_online
from experiments.long_lags.population import Goal, Learner, State, start, train
from experiments.long_lags.results import Found, Options, at_least, counted
from experiments.long_lags.sequences import Sequence

NET = Net(
    7,
    7,
    3,
    2,
    biases="gates",
    output_bias=False,
    output_gate_biases=(-1.0, -2.0, -3.0),
    span=0.2,
)
RATE, STRINGS, SEEDS, EVERY, BUDGET = 0.5, 256, 30, 100, 100_000
NEVER = Goal(1, -1.0)  # success is found out by the strings, not by the latest errors
TIMES = jnp.arange(reber.LONGEST - 1)


LEARNERS = {
    "1997": of_1997_online(NET, RATE),
    "modern": modern(NET, units=12, rate=1e-2, batch=1, longest=reber.LONGEST),
}
SOURCE = {
    "1997": f"table 1, 3 blocks of 2 cells, 276 weights, rate {RATE}",
    "modern": "table 1; today's: 12 units, Adam at 0.01, one string at a time",
}


def all_right(learner: Learner, params: Any, xs: jax.Array, legal: jax.Array) -> jax.Array:
    """For each string, whether what may come is more active than all else at every step, (N,)."""

    def one(xs, legal):
        y = learner.outputs(params, xs, TIMES)
        least = jnp.where(legal > 0, y, jnp.inf).min(-1)
        most = jnp.where(legal > 0, -jnp.inf, y).max(-1)
        return ((least > most) | (legal.sum(-1) == 0)).all()

    return jax.vmap(one)(xs, legal)


def run(name: str, form: str, options: Options) -> Found:
    """The experiment, of 30 trials with strings of their own."""
    learner, seeds = LEARNERS[form], options.seeds or SEEDS
    budget = at_least(options, 1_000, BUDGET, "strings")
    sets = [reber.data_set(np.random.default_rng(n), 2 * STRINGS) for n in range(seeds)]
    data = tuple(map(jnp.stack, zip(*sets, strict=True)))
    keys = jax.random.split(jax.random.key(0), seeds)
    state = jax.vmap(lambda key: start(learner, NEVER, key))(keys)

    def updates(state: State, xs, following, legal):
        def sample(key):
            n = jax.random.randint(key, (), 0, STRINGS)
            return Sequence(xs[n], TIMES, following[n], following[n], following[n].sum(-1))

        state = train(learner, sample, NEVER, EVERY, state)
        right = all_right(learner, state.params, xs, legal)
        solved = jnp.where((state.solved < 0) & right.all(), state.seen, state.solved)
        return state._replace(solved=solved), right[STRINGS:].mean()

    step = jax.jit(jax.vmap(updates))
    right = np.zeros(seeds)
    for seen in range(EVERY, budget + 1, EVERY):
        state, right = step(state, *data)
        solved = np.asarray(state.solved)
        if seen % 5000 == 0:
            print(f"{seen:,} strings: {(solved >= 0).sum()} of {seeds} have succeeded")
        if (solved >= 0).all():
            break
    solved, done = np.asarray(state.solved), np.asarray(state.solved) >= 0
    good = done.mean() >= 0.95 and solved[done].mean() <= 25_000
    return Found(
        title="1: embedded Reber grammar",
        source=SOURCE[form],
        paper="100 %; 8,440 strings",
        accept="95 % of the seeds, mean at most 25,000",
        ours=counted(solved, "strings"),
        floor=f"the legal symbols of bigrams: {bigrams(sets):.1%} of strings right",
        passed=bool(good) if form == "1997" else None,
        seeds=seeds,
        numbers={"solved": solved.tolist(), "right": np.asarray(right).tolist(), "budget": budget},
    )


def bigrams(sets: list[tuple[np.ndarray, ...]]) -> float:
    """Of the test's strings, how many are right if all that ever follows a symbol may follow it."""
    right = []
    for xs, following, legal in sets:
        inside = following.sum(-1) > 0
        seen = np.zeros((7, 7), bool)
        np.logical_or.at(
            seen, xs[:STRINGS][inside[:STRINGS]], following[:STRINGS][inside[:STRINGS]] > 0
        )
        same = (seen[xs] == (legal > 0)).all(-1) | ~inside
        right.append(same[STRINGS:].all(1).mean())
    return float(np.mean(right))
