"""JANET: an LSTM with no gate but the forget gate."""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check_floating, check_size
from jaxlstm.gated import GatedUnroll, Weights, gated_step, state_dtypes
from jaxlstm.gates import named, sigmoid, sums, tanh
from jaxlstm.initializers import gate_weights


class JANETParams(NamedTuple):
    w_x: Array  # (D, 2, H)  gates f, g
    w_h: Array  # (H, 2, H)
    b: Array  # (2, H)


class JANETCarry(NamedTuple):
    h: Array  # (*B, H)  the cell state, which is the output too


def init_janet(
    key: Array,
    features: int,
    hidden: int,
    *,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> JANETParams:
    """Draws the params of a JANET: Glorot, orthogonal gate by gate, and zero biases but f's.

    The paper begins with chrono biases: `jaxlstm.initializers.chrono`.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the state.
      forget_bias: initial value of the forget gate's bias.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer.

    Example:
      >>> import jax
      >>> from jaxlstm import init_janet
      >>> init_janet(jax.random.key(0), features=3, hidden=4).w_x.shape
      (3, 2, 4)
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    w_x, w_h = gate_weights(key, features, hidden, (2,), dtype)
    return JANETParams(w_x, w_h, jnp.zeros((2, hidden), dtype).at[0].set(forget_bias))


def janet_update(theta: tuple, carry: JANETCarry, z: Array, u: Array, *, beta: float) -> JANETCarry:
    """The elementwise part of `janet_step`, of z = x W + b and u = h U, both (*B, 2, H)."""
    s, g = sums(z, u)
    (f,) = named(f=sigmoid(s))
    kept = f * carry.h
    i, g = named(i=1 - sigmoid(s - beta), g=tanh(g))
    return JANETCarry(kept + i * g)


def janet_step(
    params: JANETParams, carry: JANETCarry, x: Array, *, beta: float = 1.0
) -> tuple[JANETCarry, Array]:
    """One step of a JANET ("just another network").

        s = x W_f + h U_f + b_f
        g = tanh(x W_g + h U_g + b_g)
        h' = σ(s) ⊙ h + (1 - σ(s - β)) ⊙ g

    Args:
      params: the weights.
      carry: the state before, h (*B, H).
      x: (*B, D) floating point.
      beta: β, by how much the control of what comes in lags behind that of what stays.

    Returns:
      The state after, in the dtype of the one before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import JANETCarry, init_janet, janet_step
      >>> params = init_janet(jax.random.key(0), features=3, hidden=4)
      >>> carry, h = janet_step(params, JANETCarry(jnp.zeros((2, 4))), jnp.ones((2, 3)))
      >>> h.shape
      (2, 4)

    References:
      van der Westhuizen and Lasenby 2018, The unreasonable effectiveness of the forget gate,
      arXiv:1804.04849, eq. 13 to 16.
    """
    return gated_step(partial(janet_update, beta=beta), _split(params), carry, x)


def _split(params: JANETParams) -> Weights:
    return Weights(params.w_x, params.w_h, params.b)


@cell
def janet(hidden: int, *, beta: float = 1.0) -> Parts:
    """An LSTM with no gate but the forget gate: `janet_step` as a `Cell`.

    Args:
      hidden: H, the size of the state.
      beta: β, by how much the control of what comes in lags behind that of what stays.

    Returns:
      A Cell with params `JANETParams`, carry `JANETCarry` and output h (*B, H). Params are in
      the dtype of the x that `init` is given.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.janet(64), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `janet_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        check_floating(x, "x")
        return init_janet(key, x.shape[-1], hidden, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, _ = state_dtypes(params, x)
        return JANETCarry(jnp.zeros((*x.shape[:-1], hidden), dtype))

    step = partial(janet_step, beta=beta)
    return init, initial_carry, step, GatedUnroll(partial(janet_update, beta=beta), _split)
