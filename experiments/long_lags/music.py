"""The next frame of polyphonic music: Chung et al. 2014, and the ablations of Greff et al. 2015.

    python -m experiments.long_lags jsb --data FOLDER
    python -m experiments.long_lags nottingham --data FOLDER
    python -m experiments.long_lags jsb-ablations --data FOLDER

Chung et al., arXiv:1412.3555: one layer of 36 LSTM, 46 GRU or 100 tanh units, some 20,000 weights
each; 88 independent Bernoulli outputs; noise of deviation 0.075 on the weights; the gradient's
norm at most 1; the weights that were best on the validation set. Greff et al., arXiv:1503.04069:
the LSTM with peepholes, and eight variants of it.

Where we differ: Adam, in place of RMSProp and of momentum; for the tunes noise of 0.03, and a rate
that falls as a cosine; a network of 200 units beside them; and in the ablations all variants have
the same number of units and settings, where the paper has 200 random ones of each.

Result, in nats a frame: the chorales 8.51 by the LSTM, 8.57 by the GRU, 8.77 by the plain network
(the paper: 8.67, 8.54, 9.10); the tunes 3.95, 3.88 and 3.51 (3.20, 3.23, 3.13), 3.33 by 200 units;
all variants within 0.07 of each other. More of it: docs/long_lags.md.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxlstm as jl
from experiments.long_lags.piano_rolls import NOTES, Music, Padded, floors, load, padded
from experiments.long_lags.results import Found, Options, spread
from experiments.long_lags.supervised import Trained, fit


class Net(NamedTuple):
    """A cell, with as many outputs as units, below 88 logistic outputs."""

    cell: jl.Cell
    units: int


NETS = {
    "lstm": Net(jl.lstm(36), 36),
    "gru": Net(jl.gru(46), 46),
    "elman": Net(jl.elman(100), 100),
    "lstm-200": Net(jl.lstm(200), 200),
}
FORMS = tuple(NETS)
PAPER = {
    "jsb": {"lstm": "8.67", "gru": "8.54", "elman": "9.10"},
    "nottingham": {"lstm": "3.20", "gru": "3.23", "elman": "3.13"},
}
ACCEPT = {"jsb": 8.7, "nottingham": 3.35}  # nats a frame
TITLES = {"jsb": "JSB chorales", "nottingham": "Nottingham folk tunes"}
VARIANTS = {
    "vanilla": Net(jl.lstm(36, peephole=True), 36),
    **{
        name.upper(): Net(jl.lstm_ablation(36, name), 36)
        for name in ("nig", "nfg", "nog", "niaf", "noaf", "np", "cifg", "fgr")
    },
}


class Learning(NamedTuple):
    noise: float  # deviation, on every weight
    updates: int  # at most
    falls: bool  # whether the rate falls as a cosine over them


def said(learning: Learning) -> str:
    rate = "a rate that falls" if learning.falls else "a rate that stays"
    return f"ours noise of {learning.noise}, {rate}"


LEARNING = {"jsb": Learning(0.075, 3_000, False), "nottingham": Learning(0.03, 2_000, True)}
RATE, BATCH, LONGEST = 1e-2, 16, 256
SEEDS, EVERY = 3, 50  # networks; updates between looks
PATIENCE = 8  # looks without a better one at the validation set


class Outcome(NamedTuple):
    """Of each seed, in nats a frame, by the weights that were best on the validation set."""

    valid: np.ndarray  # (seeds,)
    test: np.ndarray  # (seeds,)
    updates: int
    weights: int  # of a network


def nats(net: Net, params: Any, part: Padded) -> jax.Array:
    """The mean negative log-likelihood of the frames that have one before.

    Args:
      net: the network.
      params: of the cell, and w (H, 88) and b (88,) of the outputs.
      part: sequences.

    Returns:
      () nats a frame.
    """
    rnn, w, b = params
    rolls = part.rolls.swapaxes(0, 1).astype(jnp.float32)
    lengths = part.lengths - 1
    _, h = jl.scan(net.cell, rnn, rolls[:-1], lengths=lengths)
    losses = optax.sigmoid_binary_cross_entropy(h @ w + b, rolls[1:]).sum(-1)
    there = jnp.arange(len(losses))[:, None] < lengths
    return jnp.where(there, losses, 0).sum() / lengths.sum()


def noisy(params: Any, key: jax.Array, deviation: float) -> Any:
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    add = lambda a, key: a + deviation * jax.random.normal(key, a.shape)
    return jax.tree.unflatten(tree, map(add, leaves, keys))


def train(net: Net, music: Music, learning: Learning, seeds: int) -> Outcome:
    """Networks until the validation set has said for a while that it gets no better."""
    of_train = padded(music.train, LONGEST)
    of_valid, of_test = padded(music.valid), padded(music.test)
    often = of_train.rolls.sum((0, 1)) / of_train.lengths.sum()
    b = np.log(often + 1e-4) - np.log1p(-often)

    def init(key):
        of_cell, of_output = jax.random.split(key)
        w = jax.random.normal(of_output, (net.units, NOTES)) / net.units**0.5
        return net.cell.init(of_cell, jnp.zeros(NOTES)), w, jnp.asarray(b, w.dtype)

    def draw(key, of_train):
        rows = jax.random.randint(key, (BATCH,), 0, len(of_train.lengths))
        return jax.tree.map(lambda a: a[rows], of_train)

    loss = lambda params, part, key: nats(net, noisy(params, key, learning.noise), part)
    measured = jax.jit(lambda params, part: jax.lax.map(lambda p: nats(net, p, part), params))
    best, kept, since, ended = np.full(seeds, np.inf), None, 0, 0

    def look(done: int, trained: Trained, losses: jax.Array) -> bool:
        nonlocal best, kept, since, ended
        valid = np.asarray(measured(trained.params, of_valid))
        better = valid < best
        now = jax.tree.map(np.array, trained.params)
        choose = lambda new, old: np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        kept = now if kept is None else jax.tree.map(choose, now, kept)
        best, since, ended = np.minimum(valid, best), 0 if better.any() else since + 1, done
        print(f"{done:,} updates: train {losses.mean():.2f}, valid {valid.mean():.3f}", flush=True)
        return since >= PATIENCE

    updates = learning.updates
    rate = optax.cosine_decay_schedule(RATE, updates) if learning.falls else RATE
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    options = {"seeds": seeds, "updates": updates, "every": min(EVERY, updates), "look": look}
    fit(init, loss, draw, optimizer, **options, data=(of_train,))
    test = np.asarray(measured(kept, of_test))
    return Outcome(best, test, ended, sum(a[0].size for a in jax.tree.leaves(kept)))


def run(name: str, form: str, options: Options) -> Found:
    """One of the data sets, by one network."""
    music = load(name, options.data)
    learning = LEARNING[name]
    budget = options.budget or (EVERY if options.quick else learning.updates)
    seeds = options.seeds or SEEDS
    found = train(NETS[form], music, learning._replace(updates=budget), seeds)
    return Found(
        title=f"{TITLES[name]}, nats a frame",
        source=f"Chung et al. 2014, table 2; {NETS[form].units} units, {found.weights:,} weights; "
        f"{said(learning)}",
        paper=PAPER[name].get(form, "none of this size"),
        accept=f"at most {ACCEPT[name]}",
        ours=f"{spread(found.test, '{:.3f}')} after at most {found.updates:,} updates",
        floor=_floor(music),
        passed=None if form == "elman" else bool(found.test.mean() <= ACCEPT[name]),
        seeds=seeds,
        numbers=_numbers(found),
    )


def ablations(name: str, form: str, options: Options) -> Found:
    """The LSTM with peepholes and its eight variants, on the chorales."""
    music = load("jsb", options.data)
    learning, seeds = LEARNING["jsb"], options.seeds or 5
    budget = options.budget or (10 if options.quick else learning.updates)
    found = {}
    for variant, net in VARIANTS.items():
        print(variant)
        found[variant] = train(net, music, learning._replace(updates=budget), seeds)
    order = sorted(found, key=lambda variant: found[variant].test.mean())
    vanilla = found["vanilla"].test

    def worse(variant):
        test = found[variant].test
        return test.mean() - vanilla.mean() > test.std() + vanilla.std()

    return Found(
        title="JSB chorales, the LSTM's parts left out, nats a frame",
        source="Greff et al. 2015, section V; 36 units",
        paper="NFG and NOAF significantly worse, FGR worse; CIFG and NP as good",
        accept="NFG and NOAF worse than vanilla by more than both deviations, CIFG and NP not",
        ours=", ".join(f"{variant} {spread(found[variant].test, '{:.3f}')}" for variant in order),
        floor=_floor(music),
        passed={v for v in ("NFG", "NOAF", "CIFG", "NP") if worse(v)} == {"NFG", "NOAF"},
        seeds=seeds,
        numbers={variant: _numbers(outcome) for variant, outcome in found.items()},
    )


def _floor(music: Music) -> str:
    of = floors(music)
    return f"note by note: {of['markov']:.2f} by the frame before, {of['marginal']:.2f} by none"


def _numbers(found: Outcome) -> dict[str, Any]:
    return {name: np.asarray(part).tolist() for name, part in found._asdict().items()}
