"""Gated recurrent unit with the reset gate before the recurrent product, as first published."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check_features, check_floating, check_shape, check_size
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import activate, named, sigmoid, tanh
from jaxlstm.hoisted import HoistedUnroll
from jaxlstm.initializers import gate_weights
from jaxlstm.kernels.recurrence import project


class GRUResetBeforeParams(NamedTuple):
    w_x: Array  # (D, 3, H)  gates r, z, n
    w_h: Array  # (H, 3, H)
    b: Array  # (3, H)


class GRUResetBeforeCarry(NamedTuple):
    h: Array  # (*B, H)  hidden state


def init_gru_reset_before(
    key: Array,
    features: int,
    hidden: int,
    *,
    dtype: Any = jnp.float32,
) -> GRUResetBeforeParams:
    """Draws the params: Glorot, orthogonal gate by gate, and zero biases.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the state.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer.

    Example:
      >>> import jax
      >>> from jaxlstm import init_gru_reset_before
      >>> init_gru_reset_before(jax.random.key(0), features=3, hidden=4).w_x.shape
      (3, 3, 4)
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    w_x, w_h = gate_weights(key, features, hidden, (3,), dtype)
    return GRUResetBeforeParams(w_x, w_h, jnp.zeros((3, hidden), dtype))


def gru_reset_before_step(
    params: GRUResetBeforeParams, carry: GRUResetBeforeCarry, x: Array
) -> tuple[GRUResetBeforeCarry, Array]:
    """One step of a gated recurrent unit, the reset before the product as in the paper.

        r = σ(x W_r + h U_r + b_r)
        z = σ(x W_z + h U_z + b_z)
        n = tanh(x W_n + (r ⊙ h) U_n + b_n)
        h' = (1 - z) ⊙ n + z ⊙ h

    As Keras with `reset_after=False` and ONNX with `linear_before_reset=0`. `jaxlstm.gru_step`
    is the one with the reset after the product, as in cuDNN.

    Args:
      params: the weights.
      carry: the state before, h (*B, H).
      x: (*B, D) floating point.

    Returns:
      The state after, in the dtype of the one before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import GRUResetBeforeCarry, init_gru_reset_before, gru_reset_before_step
      >>> params = init_gru_reset_before(jax.random.key(0), features=3, hidden=4)
      >>> carry = GRUResetBeforeCarry(jnp.zeros((2, 4)))
      >>> carry, h = gru_reset_before_step(params, carry, jnp.ones((2, 3)))
      >>> h.shape
      (2, 4)

    References:
      Cho et al. 2014, arXiv:1406.1078, eq. 5 to 8 (in versions 2 and 3).
    """
    return _unroll.step(params, carry, x)


def _inputs(params, x):
    check_features(x, params.w_x.shape[0], "x", "params.w_x")
    return project(x, params.w_x) + params.b


def _weights(params):
    return params.w_h[:, :2], params.w_h[:, 2]


def _recur(weights, carry, z):
    (h,), (w_gates, w_n) = carry, weights
    check_shape(h, (*z.shape[:-2], w_n.shape[0]), "carry.h", "as x and params.w_h have it")
    r, keep = activate(z[..., :2, :] + project(h, w_gates), sigmoid, sigmoid)
    r, keep = named(r=r, z=keep)
    (n,) = named(n=tanh(z[..., 2, :] + project(r.astype(h.dtype) * h, w_n)))
    h = ((1 - keep) * n + keep * h).astype(h.dtype)
    return GRUResetBeforeCarry(h), h


_unroll = HoistedUnroll(_inputs, _recur, _weights)


@cell
def gru_reset_before(hidden: int) -> Parts:
    """A gated recurrent unit with the reset before the product, as a `Cell`.

    Args:
      hidden: H, the size of the state.

    Returns:
      A Cell with params `GRUResetBeforeParams`, carry `GRUResetBeforeCarry` and output h
      (*B, H). Params are in the dtype of the x that `init` is given.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.gru_reset_before(64), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `gru_reset_before_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        check_floating(x, "x")
        return init_gru_reset_before(key, x.shape[-1], hidden, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, _ = state_dtypes(params, x)
        return GRUResetBeforeCarry(jnp.zeros((*x.shape[:-1], hidden), dtype))

    return init, initial_carry, gru_reset_before_step, _unroll
