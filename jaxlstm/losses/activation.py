"""Penalties on the outputs of a recurrent network."""

from typing import Any

import jax.numpy as jnp

from jaxlstm.base import Array
from jaxlstm.checks import check, check_floating, check_lengths, describe


def activation_regularization(ys: Array, *, lengths: Any = None) -> Array:
    """The mean square of a network's outputs, to be kept small: AR.

    Args:
      ys: (T, *B, H) floating point; in the paper after dropout.
      lengths: (*B,) integers; what stands behind a length counts for nothing.

    Returns:
      A number, at least float32, to be scaled by α (2 in the paper) and added to the loss.

    Raises:
      ValueError: if `ys` is not floating point, or the lengths do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm import activation_regularization
      >>> float(activation_regularization(jnp.array([[1.0], [3.0], [9.0]]), lengths=2))
      5.0

    References:
      Merity, McCann and Socher 2017, arXiv:1708.01009, section 3.1.
    """
    _check(ys)
    return _mean_square(ys, _within(ys, lengths))


def temporal_activation_regularization(ys: Array, *, lengths: Any = None) -> Array:
    """The mean square of the change of a network's outputs from step to step: TAR.

    Args:
      ys: (T, *B, H) floating point; in the paper without dropout.
      lengths: (*B,) integers; what stands behind a length counts for nothing.

    Returns:
      A number, at least float32, to be scaled by β (1 in the paper) and added to the loss.

    Raises:
      ValueError: if `ys` is not floating point, or the lengths do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm import temporal_activation_regularization
      >>> float(temporal_activation_regularization(jnp.array([[1.0], [3.0], [9.0]]), lengths=2))
      4.0

    References:
      Merity, McCann and Socher 2017, arXiv:1708.01009, section 3.2.
    """
    _check(ys)
    within = _within(ys, lengths)
    return _mean_square(jnp.diff(jnp.where(within, ys, 0), axis=0), within[1:])


def _check(ys):
    check_floating(ys, "ys")
    check(ys.ndim > 1, "ys", "(T, *B, H)", describe(ys))


def _within(ys, lengths):
    if lengths is None:
        return jnp.ones(ys.shape, bool)
    lengths = check_lengths(lengths, ys.shape)
    time = jnp.arange(len(ys)).reshape(-1, *(1,) * (ys.ndim - 1))
    return jnp.broadcast_to(
        time < lengths.reshape(lengths.shape + (1,) * (ys.ndim - 1 - lengths.ndim)), ys.shape
    )


def _mean_square(a, valid):
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.square(jnp.where(valid, a, 0).astype(wide)).sum() / jnp.maximum(valid.sum(), 1)
