"""Precise timing: Gers, Schraudolph and Schmidhuber 2002, JMLR 3, with and without peepholes.

    python -m experiments.long_lags gts --form peepholes
    python -m experiments.long_lags gts --form none

One block with one cell, forget gates, no squashing of the state. Measuring spike delays (MSD): at
each spike, whether the interval before it was F or F + 1 steps. Generating timed spikes (GTS): a 1
at every F-th step, a 0 at all others, and nothing to see. Periodic function generation (PFG): a
cosine of period F, and nothing to see.

Weights change at every step, by the truncated gradient and momentum. A stream ends, and all states
and traces with it, at the first output that is too far off, or after 100 spikes or periods: so one
spike is learnt before the second. Every 20,000 steps a network is tested by ten streams of 100,
with the weights that it had at the last spike of its longest stream since the last test. They stand
still: many a network keeps time only for as long as it learns. It has succeeded if it gets through
all ten.

Where we differ: rate and momentum, found by GTS with both kinds of networks; the paper's tests are
after each stream; and its PFG has other waves too, its MSD longer intervals.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.long_lags import blocks, online
from experiments.long_lags.blocks import Net, Params
from experiments.long_lags.results import Found, Options, at_least, counted

NET = Net(1, 1, 1, 1, forget_gates=True, squashed=False, gates_feed=False)
FORMS = {"peepholes": NET._replace(peepholes=True), "none": NET}
RATE, MOMENTUM = 0.03, 0.9
EVERY, SEEDS, BUDGET, TESTS, LONG = 20_000, 20, 10_000_000, 10, 100


class Place(NamedTuple):
    """Where a stream is."""

    since: jax.Array  # steps since the last spike
    interval: jax.Array  # from the last spike to the next
    before: jax.Array  # the interval that ended with the last spike; 0 at the first
    spikes: jax.Array  # so far


class Task(NamedTuple):
    """A task.

    Fields:
      title: of it.
      interval: F, steps.
      more: by how much an interval may be longer, at random.
      x: place -> the input.
      target: place -> what is wanted.
      asked: place -> whether it is.
      tolerance: how far off an output may be.
      floor: what a network without memory does.
      first: the steps since a spike with which a stream begins.
    """

    title: str
    interval: int
    more: int
    x: Callable[[Place], jax.Array]
    target: Callable[[Place], jax.Array]
    asked: Callable[[Place], jax.Array]
    tolerance: float
    floor: str
    first: int = 1


def _spike(place: Place) -> jax.Array:
    return place.since == 0


def _later_spike(place: Place) -> jax.Array:
    return _spike(place) & (place.before > 0)


_nothing = lambda place: jnp.zeros(())
_always = lambda place: jnp.bool(True)


def msd(interval: int) -> Task:
    longer = lambda place: (place.before > interval).astype(float)
    spike = lambda place: _spike(place).astype(float)
    floor = "the same answer always: half of the intervals, and no stream of 100"
    title = f"MSD: {interval} or {interval + 1} steps between spikes"
    return Task(title, interval, 1, spike, longer, _later_spike, 0.5, floor, first=0)


def gts(interval: int) -> Task:
    spike = lambda place: _spike(place).astype(float)
    floor = f"0 always: {interval - 1} steps of {interval * LONG:,}"
    title = f"GTS: a spike every {interval} steps"
    return Task(title, interval, 0, _nothing, spike, _always, 0.5, floor)


def pfg(interval: int) -> Task:
    wave = lambda place: 0.5 - 0.5 * jnp.cos(2 * jnp.pi * place.since / interval)
    floor = "the mean always: wrong where the cosine is beyond ±0.6, at the first step"
    title = f"PFG: a cosine of period {interval}"
    return Task(title, interval, 0, _nothing, wave, _always, 0.3, floor)


TASKS = {"msd": msd(10), "gts": gts(10), "pfg": pfg(10)}


PAPER = {
    "msd": {"peepholes": "learnt", "none": "learnt, of short intervals"},
    "gts": {"peepholes": "learnt", "none": "not learnt"},
    "pfg": {"peepholes": "learnt", "none": "not learnt"},
}
ACCEPT = {("gts", "peepholes"): "by one seed at least", ("gts", "none"): "by none"}


class State(NamedTuple):
    """A network amid its training."""

    key: jax.Array
    params: Params
    velocity: Params
    memory: online.Memory
    place: Place
    longest: jax.Array  # the most spikes of a stream since the last test, and the weights then
    kept: Params


def begin_stream(task: Task, key: jax.Array) -> Place:
    zero = jnp.int32(0)
    return Place(zero + task.first, _interval(task, key), zero, zero)


def _interval(task: Task, key: jax.Array) -> jax.Array:
    return jax.random.randint(key, (), task.interval, task.interval + task.more + 1, jnp.int32)


def advance(task: Task, key: jax.Array, place: Place) -> Place:
    """The next step's place."""
    since, spike = place.since + 1, place.since + 1 == place.interval
    return Place(
        jnp.where(spike, 0, since),
        jnp.where(spike, _interval(task, key), place.interval),
        jnp.where(spike, place.interval, place.before),
        place.spikes + spike,
    )


def wrong(task: Task, place: Place, output: jax.Array) -> jax.Array:
    return task.asked(place) & ~(jnp.abs(output - task.target(place)) < task.tolerance)


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
    longest = jnp.maximum(place.spikes, state.longest)
    end = missed | (place.spikes >= LONG)
    fresh = online.begin(net), begin_stream(task, of_interval)
    going = memory, advance(task, of_interval, place)
    memory, place = jax.tree.map(lambda new, old: jnp.where(end, new, old), fresh, going)
    return State(key, params, velocity, memory, place, longest, kept)


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
    task, net = TASKS[name], FORMS[form]
    seeds = options.seeds or SEEDS
    budget = at_least(options, EVERY, BUDGET, "steps")
    state = jax.vmap(partial(begin, task, net))(jax.random.split(jax.random.key(0), seeds))
    some = jax.jit(
        jax.vmap(
            lambda s: jax.lax.scan(lambda s, _: (learn(task, net, s), None), s, None, EVERY)[0]
        )
    )
    through = jax.vmap(jax.vmap(partial(survives, task, net), (None, 0)), (0, None))
    examine = jax.jit(lambda params, keys: through(params, keys).all(1))
    solved = np.full(seeds, -1)
    for seen in range(EVERY, budget + 1, EVERY):
        state = some(state)
        good = np.asarray(examine(state.kept, jax.random.split(jax.random.key(seen), TESTS)))
        state = state._replace(longest=jnp.zeros_like(state.longest))
        solved = np.where((solved < 0) & good, seen, solved)
        if seen % 500_000 == 0:
            print(f"{seen:,} steps: {(solved >= 0).sum()} of {seeds}", flush=True)
        if (solved >= 0).all():
            break
    return Found(
        title=task.title,
        source=f"Gers et al. 2002; one cell, rate {RATE}, momentum {MOMENTUM}",
        paper=PAPER[name][form],
        accept=ACCEPT.get((name, form), ""),
        ours=counted(solved, "steps"),
        floor=task.floor,
        passed=_passed(name, form, solved) if budget >= BUDGET else None,
        seeds=seeds,
        numbers={"solved": solved.tolist(), "budget": budget},
    )


def _passed(name: str, form: str, solved: np.ndarray) -> bool | None:
    if name != "gts":
        return None
    return bool((solved >= 0).any() if form == "peepholes" else (solved < 0).all())
