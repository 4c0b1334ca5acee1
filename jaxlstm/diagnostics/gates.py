"""What gates say about memory: the time constants they imply, and how often they are saturated."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxlstm.base import Array, select
from jaxlstm.checks import check, check_flags, check_floating


def time_constants(f: Array, valid: Any = None, *, over_time: bool = False) -> Array:
    """The times, in steps, after which gates that stay as they are have forgotten all but 1/e.

        τ = -1 / log f

    infinite where f is 1, and 0 where it is 0. Over time, of the decay that there was, the product
    of all f: τ = -1 / mean_t log f_t.

    Args:
      f: (T, *B, H) in [0, 1]: a `Trace`'s forget gate, or the z of a `gru`, which keeps; of an
        `mgu`, `mingru` or `gru_d`, whose gates let in, 1 - f or 1 - z.
      valid: (T, *B) booleans, as `Trace.valid` has them; None for True everywhere.
      over_time: whether to take the steps together.

    Returns:
      (T, *B, H), NaN where a step is not valid; or (*B, H) over time, NaN where no step is.

    Raises:
      ValueError: if f is not floating point, or `valid` not booleans of its first axes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm.diagnostics import time_constants
      >>> time_constants(jnp.array([[0.5], [jnp.exp(-0.1)], [1.0]])).round(1)[:, 0]
      Array([ 1.4, 10. ,  inf], dtype=float32)

    References:
      Tallec and Ollivier 2018, Can recurrent neural networks warp time?, arXiv:1804.11188,
      section 1; `jaxlstm.initializers.chrono` draws biases for such times.
    """
    f, shown = _checked(f, valid, "f")
    rates = jnp.abs(jnp.log(f))  # not a minus: -log 1 is -0
    if over_time:
        return 1 / jnp.mean(rates, 0, where=shown)
    return jnp.where(shown, 1 / rates, jnp.nan)


class Saturation(NamedTuple):
    low: Array  # (H,)  how much of the time a unit's gate is below the lower bound, 0 to 1
    high: Array  # (H,)  and above the upper one


def saturation(
    gate: Array, valid: Any = None, *, low: float = 0.1, high: float = 0.9, axes: int = 1
) -> Saturation:
    """How often each unit's gate is all but closed, and all but open.

    Args:
      gate: (T, *B, H): a gate of a `Trace`; a candidate has other bounds, as -0.9 and 0.9.
      valid: (T, *B) booleans, as `Trace.valid` has them; None for True everywhere.
      low: below it a gate is saturated to the left.
      high: above it a gate is saturated to the right.
      axes: how many axes a step of one sequence has: 1 for (H,), 3 for pictures.

    Returns:
      Fractions of all valid steps of all sequences, (H,) each; NaN where no step is valid.

    Raises:
      ValueError: if the gate is not floating point, has no such axes, or `low` is above `high`;
        or if `valid` is not booleans of its first axes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm.diagnostics import saturation
      >>> forget = jnp.array([[0.05, 0.5], [0.95, 0.5], [0.99, 0.02], [1.0, 0.5]])
      >>> saturation(forget)
      Saturation(low=Array([0.25, 0.25], dtype=float32), high=Array([0.75, 0.  ], dtype=float32))

    References:
      Karpathy, Johnson and Fei-Fei 2016, arXiv:1506.02078, section 4.2 and figure 1.
    """
    gate, shown = _checked(gate, valid, "gate")
    check(low <= high, "low", f"at most high, {high}", low)
    check(0 < axes < gate.ndim, "axes", f"1 to {gate.ndim - 1}, as gate has them", axes)
    over = tuple(range(gate.ndim - axes))
    share = lambda flags: jnp.mean(flags.astype(gate.dtype), over, where=shown)
    return Saturation(share(gate < low), share(gate > high))


def _checked(gate, valid, argument):
    """A gate, 1 where a step is not valid, and where it is."""
    check_floating(gate, argument)
    check(gate.ndim > 1, argument, "time and units as axes", f"shape {gate.shape}")
    valid = check_flags(valid, "valid", gate.shape)
    if valid is None:
        return gate, jnp.ones((), bool)
    shown = valid.reshape(valid.shape + (1,) * (gate.ndim - valid.ndim))
    return select(valid, gate, jnp.ones_like(gate)), jnp.broadcast_to(shown, gate.shape)
