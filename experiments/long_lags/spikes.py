"""Streams of spikes, and what is asked of a network at each step: the tasks of `timing`.

Gers, Schraudolph and Schmidhuber 2002, JMLR 3. Measuring spike delays (MSD): at each spike, whether
the interval before it was F or F + 1 steps. Generating timed spikes (GTS): a 1 at every F-th step,
a 0 at all others, and nothing to see. Periodic function generation (PFG): a cosine of period F, and
nothing to see.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

LONG = 100  # spikes, or periods, of a stream


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
