"""The plain recurrent network, with tanh or relu."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check, check_floating, check_size
from jaxlstm.gated import GatedUnroll, Weights, gated_step, state_dtypes
from jaxlstm.gates import tanh
from jaxlstm.initializers import gate_weights


class ElmanParams(NamedTuple):
    w_x: Array  # (D, H)
    w_h: Array  # (H, H)
    b: Array  # (H,)


class ElmanCarry(NamedTuple):
    h: Array  # (*B, H)  hidden state


def init_elman(key: Array, features: int, hidden: int, *, dtype: Any = jnp.float32) -> ElmanParams:
    """Draws the params of a plain recurrent network: Glorot, orthogonal, zero bias.

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
      >>> from jaxlstm import init_elman
      >>> params = init_elman(jax.random.key(0), features=3, hidden=4)
      >>> params.w_x.shape, params.w_h.shape
      ((3, 4), (4, 4))
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    w_x, w_h = gate_weights(key, features, hidden, (), dtype)
    return ElmanParams(w_x, w_h, jnp.zeros(hidden, dtype))


def _tanh_update(theta: tuple, carry: ElmanCarry, z: Array, u: Array) -> ElmanCarry:
    return ElmanCarry(tanh(z + u))


def _relu_update(theta: tuple, carry: ElmanCarry, z: Array, u: Array) -> ElmanCarry:
    return ElmanCarry(jax.nn.relu(z + u))


_UPDATES = {"tanh": _tanh_update, "relu": _relu_update}


def elman_step(
    params: ElmanParams, carry: ElmanCarry, x: Array, activation: str = "tanh"
) -> tuple[ElmanCarry, Array]:
    """One step of a plain recurrent network.

        h' = φ(x W + h U + b),   φ = tanh or relu

    Args:
      params: the weights.
      carry: the state before, h (*B, H).
      x: (*B, D) floating point.
      activation: φ, `"tanh"` or `"relu"`.

    Returns:
      The state after, in the dtype of the one before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params, or there is no such activation.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import ElmanCarry, elman_step, init_elman
      >>> params = init_elman(jax.random.key(0), features=3, hidden=4)
      >>> carry, h = elman_step(params, ElmanCarry(jnp.zeros(4)), jnp.ones(3))
      >>> h.shape
      (4,)

    References:
      Elman 1990, Finding structure in time, Cognitive Science 14(2).
    """
    _check_activation(activation)
    return gated_step(_UPDATES[activation], _split(params), carry, x)


def _check_activation(activation: str) -> None:
    check(activation in _UPDATES, "activation", f"one of {list(_UPDATES)}", repr(activation))


def _split(params: ElmanParams) -> Weights:
    return Weights(params.w_x, params.w_h, params.b)


@cell
def elman(hidden: int, *, activation: str = "tanh") -> Parts:
    """A plain recurrent network: `elman_step` as a `Cell`.

    Args:
      hidden: H, the size of the state.
      activation: `"tanh"` or `"relu"`.

    Returns:
      A Cell with params `ElmanParams`, carry `ElmanCarry` and output h (*B, H). Params are in
      the dtype of the x that `init` is given.

    Raises:
      ValueError: if `hidden` is not a positive integer, or there is no such activation.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.elman(64, activation="relu"), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `elman_step`.
    """
    check_size(hidden, "hidden")
    _check_activation(activation)

    def init(key, x):
        check_floating(x, "x")
        return init_elman(key, x.shape[-1], hidden, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, _ = state_dtypes(params, x)
        return ElmanCarry(jnp.zeros((*x.shape[:-1], hidden), dtype))

    step = partial(elman_step, activation=activation)
    return init, initial_carry, step, GatedUnroll(_UPDATES[activation], _split)
