"""Averaged gradient descent that begins by itself: NT-ASGD.

Merity, Keskar and Socher 2018, arXiv:1708.02182, algorithm 1: plain gradient descent at a constant
rate; once the validation score is worse than the best of all but the last few, the mean of the
params from there on is what is evaluated. Polyak and Juditsky 1992 for the mean.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Average(NamedTuple):
    """The mean of params so far; a part of the state."""

    params: Any  # as the params are; float32 where they are of half precision, as it would stall
    steps: Array  # () int32: how many it is the mean of; 0 before it has begun


def initial_average(params: Any) -> Average:
    """A mean that has not begun."""
    zeros = lambda p: jnp.zeros_like(p, jnp.promote_types(p.dtype, jnp.float32))
    return Average(jax.tree.map(zeros, params), jnp.zeros((), jnp.int32))


def begun(average: Average, params: Any) -> Average:
    """The mean of these params alone, if it has not begun before."""
    first = average.steps == 0
    kept = jax.tree.map(lambda a, p: jnp.where(first, p.astype(a.dtype), a), average.params, params)
    return Average(kept, jnp.maximum(average.steps, 1))


def averaged(average: Average, params: Any) -> Average:
    """The mean with the params after one more step, if it has begun; into a jitted step."""
    count = jnp.where(average.steps > 0, average.steps + 1, 0)
    part = lambda a: jnp.where(count > 0, 1 / jnp.maximum(count, 1).astype(a.dtype), 0)
    mean = jax.tree.map(lambda a, p: a + part(a) * (p - a), average.params, params)
    return Average(mean, count)


def evaluated(average: Average, params: Any) -> Any:
    """The mean in the dtypes of the params, or these themselves while it has not begun."""
    return jax.tree.map(
        lambda a, p: jnp.where(average.steps > 0, a.astype(p.dtype), p), average.params, params
    )


def triggers(scores: Sequence[float], patience: int = 5) -> bool:
    """Whether the mean is to begin after the last of these scores.

    Args:
      scores: of the validations so far, less being better; the last one is the newest. One that is
        not a number is neither best nor worse than another.
      patience: n of the algorithm: so many scores before the newest do not count.

    Returns:
      Whether the newest is worse than the best of those that count; never where there is none.

    Example:
      >>> from jaxlstm.train.averaging import triggers
      >>> [triggers([3.0, 2.0, 2.5, 2.4, 2.2][:n], patience=2) for n in (1, 2, 3, 4, 5)]
      [False, False, False, False, True]
    """
    counting = [s for s in scores[: max(0, len(scores) - 1 - patience)] if s == s]
    return bool(counting) and scores[-1] > min(counting)
