"""Precise timing: Gers, Schraudolph and Schmidhuber 2002, JMLR 3, with and without peepholes.

    python -m experiments.long_lags gts --form peepholes
    python -m experiments.long_lags gts --form modern-none

One block with one cell, forget gates, no squashing of the state. In the paper's form the weights
change at every step, by the truncated gradient and momentum. A stream ends, and all states and
traces with it, at the first output that is too far off, or after 100 spikes or periods: so one
spike is learnt before the second. In today's they change after streams of 20 spikes, by Adam and
the whole gradient of what comes up to the first output that is too far off.

A network has succeeded if it gets through ten streams of 100 with weights that stand still: many a
network keeps time only for as long as it learns. It is tested every 20,000 steps, with the weights
that it had at the last spike of its longest stream since the last test; or every 500 updates.

Where we differ: rate and momentum, found by GTS with both kinds of networks; the paper tests after
each stream; and its PFG has other waves too, its MSD longer intervals.

Result, of 20 networks in the paper's form: GTS is learnt by 3 with peepholes and by 3 without; in
the paper only those with them learn it; PFG by 9 and by 20; MSD by none. More of it:
docs/long_lags.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.long_lags import blocks, online
from experiments.long_lags.blocks import Net, Params
from experiments.long_lags.results import Found, Options, at_least, counted
from experiments.long_lags.spikes import (
    LONG,
    Place,
    Task,
    advance,
    begin_stream,
    gts,
    msd,
    pfg,
    wrong,
)
from experiments.long_lags.supervised import fit
from jaxlstm.gates import sigmoid

SEEDS, TESTS = 20, 10
NET = Net(1, 1, 1, 1, forget_gates=True, squashed=False, gates_feed=False)
RATE, MOMENTUM = 0.03, 0.9
ADAM, SPIKES, BATCH = 3e-3, 20, 8  # a rate, spikes of a stream, streams where they differ
TASKS = {"msd": msd(10), "gts": gts(10), "pfg": pfg(10)}
PAPER = {
    "msd": {"peepholes": "learnt", "none": "learnt, of short intervals"},
    "gts": {"peepholes": "learnt", "none": "not learnt"},
    "pfg": {"peepholes": "learnt", "none": "not learnt"},
}
ACCEPT = {("gts", "peepholes"): "by one seed at least", ("gts", "none"): "by none"}
Look = Callable[[int, Any], bool]  # steps or updates so far, params of all seeds: whether to end


class State(NamedTuple):
    """A network amid its training."""

    key: jax.Array
    params: Params
    velocity: Params
    memory: online.Memory
    place: Place
    longest: jax.Array  # the most spikes of a stream since the last test, and the weights then
    kept: Params


def begin(task: Task, net: Net, key: jax.Array) -> State:
    key, of_params, of_stream = jax.random.split(key, 3)
    params = blocks.init(of_params, net)
    velocity = jax.tree.map(jnp.zeros_like, params)
    place = begin_stream(task, of_stream)
    return State(key, params, velocity, online.begin(net), place, jnp.int32(0), params)


def learn(task: Task, net: Net, state: State) -> State:
    """One step: its output, the change of the weights, and a new stream if it was too far off."""
    key, of_interval = jax.random.split(state.key)
    place, x = state.place, task.x(state.place)[None]
    target = task.target(place)[None]
    memory, outputs, gradient = online.step(net, state.params, state.memory, x, target)
    asked = task.asked(place)
    change = lambda v, g: MOMENTUM * v - RATE * jnp.where(asked, g, 0)
    velocity = jax.tree.map(change, state.velocity, gradient)
    params = jax.tree.map(jnp.add, state.params, velocity)
    missed = wrong(task, place, outputs[0])
    longer = ~missed & (place.spikes > state.longest)
    kept = jax.tree.map(lambda new, old: jnp.where(longer, new, old), params, state.kept)
    longest = jnp.where(longer, place.spikes, state.longest)
    end = missed | (place.spikes >= LONG)
    fresh = online.begin(net), begin_stream(task, of_interval)
    going = memory, advance(task, of_interval, place)
    memory, place = jax.tree.map(lambda new, old: jnp.where(end, new, old), fresh, going)
    return State(key, params, velocity, memory, place, longest, kept)


def of_2002(task: Task, net: Net, seeds: int, budget: int, every: int, look: Look) -> None:
    """Networks that learn at every step."""
    state = jax.vmap(partial(begin, task, net))(jax.random.split(jax.random.key(0), seeds))
    one = lambda s: jax.lax.scan(lambda s, _: (learn(task, net, s), None), s, None, every)[0]
    some = jax.jit(jax.vmap(one))
    for seen in range(every, budget + 1, every):
        state = some(state)
        if look(seen, state.kept):
            break
        state = state._replace(longest=jnp.zeros_like(state.longest))


def loss(task: Task, net: Net, params: Params, places: Place) -> jax.Array:
    """The mean cross-entropy of a stream's outputs, up to the first that is too far off."""
    xs = jax.vmap(task.x)(places)[:, None]
    logits = net._replace(logistic=False)
    a = blocks.outputs(logits, params, xs, jnp.arange(len(xs)), truncated=False)[:, 0]
    missed = jax.vmap(partial(wrong, task))(places, sigmoid(a))
    first = missed.cumsum() - missed == 0
    counts = first & jax.vmap(task.asked)(places)
    losses = optax.sigmoid_binary_cross_entropy(a, jax.vmap(task.target)(places))
    return jnp.where(counts, losses, 0).sum() / counts.sum()


def modern(task: Task, net: Net, seeds: int, budget: int, every: int, look: Look) -> None:
    """Networks that learn from whole streams."""

    def stream(key):
        key, of_stream = jax.random.split(key)
        keys = jax.random.split(key, SPIKES * task.interval)
        step = lambda place, key: (advance(task, key, place), place)
        return jax.lax.scan(step, begin_stream(task, of_stream), keys)[1]

    draw = lambda key: jax.vmap(stream)(jax.random.split(key, BATCH if task.more else 1))
    of_batch = lambda params, places, key: jax.vmap(partial(loss, task, net, params))(places).mean()
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(ADAM))
    fit(
        lambda key: blocks.init(key, net),
        of_batch,
        draw,
        optimizer,
        seeds=seeds,
        updates=budget,
        every=every,
        look=lambda done, trained, _: look(done, trained.params),
    )


class Form(NamedTuple):
    """How a network learns.

    Fields:
      net: the network.
      train: the learner.
      what: it counts.
      every: after how many of them it is tested.
      budget: how many there are.
      said: of the settings.
    """

    net: Net
    train: Callable[..., None]
    what: str
    every: int
    budget: int
    said: str


PEEPHOLES = NET._replace(peepholes=True)
PLAIN = Form(NET, of_2002, "steps", 20_000, 10_000_000, f"rate {RATE}, momentum {MOMENTUM}")
MODERN = Form(NET, modern, "updates", 500, 15_000, f"Adam, rate {ADAM}")
FORMS = {
    "peepholes": PLAIN._replace(net=PEEPHOLES),
    "none": PLAIN,
    "modern-peepholes": MODERN._replace(net=PEEPHOLES),
    "modern-none": MODERN,
}


def survives(task: Task, net: Net, params: Params, key: jax.Array) -> jax.Array:
    """Whether a stream of 100 spikes comes to its end without an output that is too far off."""
    cell = blocks.memory_blocks(net)

    def step(loop):
        key, carry, place, _ = loop
        key, of_interval = jax.random.split(key)
        x = task.x(place)[None]
        carry, y = cell.step(params, carry, blocks.net_inputs(params, x))
        good = ~wrong(task, place, blocks.readout(net, params, y, x)[0])
        return key, carry, advance(task, of_interval, place), good

    key, of_stream = jax.random.split(key)
    first = key, online.begin(net).carry, begin_stream(task, of_stream), jnp.bool(True)
    going = lambda loop: loop[3] & (loop[2].spikes <= LONG)
    return jax.lax.while_loop(going, step, first)[3]


def run(name: str, form: str, options: Options) -> Found:
    """The networks of all seeds, until each has succeeded or has had its steps."""
    task, (net, train, what, every, most, said) = TASKS[name], FORMS[form]
    seeds = options.seeds or SEEDS
    budget = at_least(options, every, most, what)
    through = jax.vmap(jax.vmap(partial(survives, task, net), (None, 0)), (0, None))
    examine = jax.jit(lambda params, keys: through(params, keys).all(1))
    solved = np.full(seeds, -1)

    def look(seen: int, params: Any) -> bool:
        nonlocal solved
        good = np.asarray(examine(params, jax.random.split(jax.random.key(seen), TESTS)))
        solved = np.where((solved < 0) & good, seen, solved)
        if seen % (25 * every) == 0:
            print(f"{seen:,} {what}: {(solved >= 0).sum()} of {seeds}", flush=True)
        return bool((solved >= 0).all())

    train(task, net, seeds, budget, every, look)
    return Found(
        title=task.title,
        source=f"Gers et al. 2002; one cell, {said}",
        paper=PAPER[name].get(form, ""),
        accept=ACCEPT.get((name, form), ""),
        ours=counted(solved, what),
        floor=task.floor,
        passed=_passed(name, form, solved) if budget >= most else None,
        seeds=seeds,
        numbers={"solved": solved.tolist(), "budget": budget},
    )


def _passed(name: str, form: str, solved: np.ndarray) -> bool | None:
    if (name, form) not in ACCEPT:
        return None
    return bool((solved >= 0).any() if form == "peepholes" else (solved < 0).all())
