"""The independently recurrent network: each unit sees its own past alone."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check, check_features, check_floating, check_shape, check_size
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import tanh
from jaxlstm.hoisted import HoistedUnroll
from jaxlstm.kernels.recurrence import project


class IndRNNParams(NamedTuple):
    w_x: Array  # (D, H)
    w_h: Array  # (H,)  u, one recurrent weight a unit
    b: Array  # (H,)


class IndRNNCarry(NamedTuple):
    h: Array  # (*B, H)  hidden state


def init_indrnn(
    key: Array, features: int, hidden: int, *, dtype: Any = jnp.float32
) -> IndRNNParams:
    """Draws the params: Glorot input weights, recurrent weights from U(0, 1), and zero biases.

    For long lags the paper draws the recurrent weights of the last layer from U(ε^(1/T), 1).

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
      >>> from jaxlstm import init_indrnn
      >>> init_indrnn(jax.random.key(0), features=3, hidden=4).w_h.shape
      (4,)
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    of_x, of_h = jax.random.split(key)
    w_x = jax.nn.initializers.glorot_uniform()(of_x, (features, hidden), dtype)
    return IndRNNParams(w_x, jax.random.uniform(of_h, (hidden,), dtype), jnp.zeros(hidden, dtype))


_ACTIVATIONS = {"relu": jax.nn.relu, "tanh": tanh}


def indrnn_step(
    params: IndRNNParams, carry: IndRNNCarry, x: Array, activation: str = "relu"
) -> tuple[IndRNNCarry, Array]:
    """One step of an independently recurrent network.

        h' = φ(x W + u ⊙ h + b),   φ = relu or tanh

    With relu the gradient over T steps neither vanishes nor explodes while every |u| is near
    1; the paper keeps |u| below 2^(1/T), which is left to the training loop here.

    Args:
      params: the weights; u is `w_h`.
      carry: the state before, h (*B, H).
      x: (*B, D) floating point.
      activation: φ, `"relu"` or `"tanh"`.

    Returns:
      The state after, in the dtype of the one before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params, or there is no such activation.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import IndRNNCarry, indrnn_step, init_indrnn
      >>> params = init_indrnn(jax.random.key(0), features=3, hidden=4)
      >>> carry, h = indrnn_step(params, IndRNNCarry(jnp.zeros(4)), jnp.ones(3))
      >>> h.shape
      (4,)

    References:
      Li, Li, Cook, Zhu and Gao 2018, arXiv:1803.04831, eq. 2.
    """
    _check_activation(activation)
    return _UNROLLS[activation].step(params, carry, x)


def _check_activation(activation: str) -> None:
    check(
        activation in _ACTIVATIONS, "activation", f"one of {list(_ACTIVATIONS)}", repr(activation)
    )


def _inputs(params, x):
    check_features(x, params.w_x.shape[0], "x", "params.w_x")
    return project(x, params.w_x) + params.b


def _recur(activation, params, carry, z):
    (h,) = carry
    check_shape(h, z.shape, "carry.h", "as x and params.w_x have it")
    h = _ACTIVATIONS[activation](z + params.w_h * h).astype(h.dtype)
    return IndRNNCarry(h), h


_UNROLLS = {name: HoistedUnroll(_inputs, partial(_recur, name)) for name in _ACTIVATIONS}


@cell
def indrnn(hidden: int, *, activation: str = "relu") -> Parts:
    """An independently recurrent network: `indrnn_step` as a `Cell`.

    Args:
      hidden: H, the size of the state.
      activation: `"relu"` or `"tanh"`.

    Returns:
      A Cell with params `IndRNNParams`, carry `IndRNNCarry` and output h (*B, H). Params are in
      the dtype of the x that `init` is given.

    Raises:
      ValueError: if `hidden` is not a positive integer, or there is no such activation.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.indrnn(64), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `indrnn_step`.
    """
    check_size(hidden, "hidden")
    _check_activation(activation)

    def init(key, x):
        check_floating(x, "x")
        return init_indrnn(key, x.shape[-1], hidden, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, _ = state_dtypes(params, x)
        return IndRNNCarry(jnp.zeros((*x.shape[:-1], hidden), dtype))

    return init, initial_carry, partial(indrnn_step, activation=activation), _UNROLLS[activation]
