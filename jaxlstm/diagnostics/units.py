"""Which units follow a feature of the input: interpretable cells, found by correlation."""

from typing import Any

import jax.numpy as jnp

from jaxlstm.base import Array
from jaxlstm.checks import check, check_flags, check_floating, check_shape


def correlations(states: Array, feature: Any, valid: Any = None) -> Array:
    """The correlation of each unit with a feature, over time and batch.

        r = Σ (s - s̄)(a - ā) / √(Σ (s - s̄)² Σ (a - ā)²)

    Pearson's. What does not vary, unit or feature, has a correlation of 0. The unit that follows a
    feature best has the largest |r|: of many units one is large by chance, so that a claim needs
    another text than the one on which the unit was found.

    Args:
      states: s, (T, *B, H) floating point: a state or a gate of a `Trace`.
      feature: a, (T, *B) numbers or booleans, as whether a character is in a string.
      valid: (T, *B) booleans, as `Trace.valid` has them; None for True everywhere.

    Returns:
      (H,) in [-1, 1], float32 or wider.

    Raises:
      ValueError: if states are not floating point, or feature or `valid` do not fit them.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm.diagnostics import correlations
      >>> states = jnp.array([[0.1, 0.5, 3.0], [0.9, 0.5, 1.0], [0.8, 0.5, 1.0]])
      >>> [f"{r:.2f}" for r in correlations(states, jnp.array([False, True, True]))]
      ['0.99', '0.00', '-1.00']

    References:
      Karpathy, Johnson and Fei-Fei 2016, arXiv:1506.02078, section 4.2, for such cells, which they
      found by eye.
    """
    check_floating(states, "states")
    check(states.ndim > 1, "states", "time and units as axes", f"shape {states.shape}")
    feature = jnp.asarray(feature)
    check_shape(feature, states.shape[:-1], "feature", "as states have it without units")
    valid = check_flags(valid, "valid", feature.shape)
    shown = jnp.ones((), bool) if valid is None else valid
    shown = shown.reshape(shown.shape + (1,) * (feature.ndim - shown.ndim))
    shown = jnp.broadcast_to(shown, feature.shape).reshape(-1, 1)
    dtype = jnp.promote_types(states.dtype, jnp.float32)
    s = _directions(states.reshape(-1, states.shape[-1]).astype(dtype), shown)
    a = _directions(feature.reshape(-1, 1).astype(dtype), shown)
    return jnp.clip((s * a).sum(0), -1, 1)


def _directions(values, shown):
    """Columns (N, H) about their means and of length one; zeros where they do not vary.

    First they are moved and scaled into [0, 1]: the mean of a constant is not always that constant
    when rounded, and squares of small numbers may be zero.
    """
    low = jnp.min(values, 0, where=shown, initial=jnp.inf)
    values = jnp.where(shown, values - low, 0)
    width = values.max(0)
    values = values / jnp.where(width > 0, width, 1)
    values = jnp.where(shown, values - jnp.mean(values, 0, where=shown), 0)
    length = jnp.linalg.norm(values, axis=0)
    return values / jnp.where(length > 0, length, 1)
