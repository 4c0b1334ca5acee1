"""Time-aware LSTM: a part of the cell state fades with the time between steps."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check, check_features, check_floating, check_shape, check_size, describe
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import activate, named, sigmoid, tanh
from jaxlstm.hoisted import HoistedUnroll
from jaxlstm.initializers import gate_weights
from jaxlstm.kernels.recurrence import accumulator, cast, project


class TimeAwareLSTMInput(NamedTuple):
    values: Array  # (*B, D)
    interval: Array  # (*B,)  time since the step before; 0 at a first step


class TimeAwareLSTMParams(NamedTuple):
    w_x: Array  # (D, 4, H)  gates i, f, g, o
    w_h: Array  # (H, 4, H)
    b: Array  # (4, H)
    w_short: Array  # (H, H)  from the cell state to its short-term part
    b_short: Array  # (H,)


class TimeAwareLSTMCarry(NamedTuple):
    c: Array  # (*B, H)  cell state; float32 where h is of half precision
    h: Array  # (*B, H)  hidden state


def init_time_aware_lstm(
    key: Array,
    features: int,
    hidden: int,
    *,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> TimeAwareLSTMParams:
    """Draws the params: Glorot, orthogonal gate by gate, and zero biases but f's.

    Args:
      key: a PRNG key.
      features: D, the size of the values.
      hidden: H, the size of the states.
      forget_bias: initial value of the forget gate's bias.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer.

    Example:
      >>> import jax
      >>> from jaxlstm import init_time_aware_lstm
      >>> init_time_aware_lstm(jax.random.key(0), features=3, hidden=4).w_short.shape
      (4, 4)
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    of_gates, of_short = jax.random.split(key)
    w_x, w_h = gate_weights(of_gates, features, hidden, (4,), dtype)
    return TimeAwareLSTMParams(
        w_x,
        w_h,
        jnp.zeros((4, hidden), dtype).at[1].set(forget_bias),
        jax.nn.initializers.glorot_uniform()(of_short, (hidden, hidden), dtype),
        jnp.zeros(hidden, dtype),
    )


def time_aware_lstm_step(
    params: TimeAwareLSTMParams, carry: TimeAwareLSTMCarry, x: TimeAwareLSTMInput
) -> tuple[TimeAwareLSTMCarry, Array]:
    """One step of a time-aware LSTM (T-LSTM), of the values v and the interval Δ.

        c_S = tanh(c W_d + b_d)                 short-term memory
        c* = (c - c_S) + c_S / log(e + Δ)       discounted
        i, f, o = σ(v W + h U + b)
        g = tanh(v W_g + h U_g + b_g)
        c' = f ⊙ c* + i ⊙ g
        h' = o ⊙ tanh(c')

    With Δ = 0 it is the LSTM. A first step has no interval: give it 0; with another, it
    discounts the tanh(b_d) of a zero state. Below 0, Δ counts as 0. The logarithm is the
    paper's discount for long times, such as days; the authors' code has a sigmoid for c_S.

    Args:
      params: the weights; W_d and b_d are `w_short` and `b_short`.
      carry: the states before, c and h (*B, H).
      x: values (*B, D) and interval (*B,), both floating point.

    Returns:
      The states after, in the dtypes of those before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> params = jl.init_time_aware_lstm(jax.random.key(0), features=3, hidden=4)
      >>> x = jl.TimeAwareLSTMInput(jnp.ones((2, 3)), jnp.array([0.0, 30.0]))
      >>> carry = jl.TimeAwareLSTMCarry(c=jnp.ones((2, 4)), h=jnp.zeros((2, 4)))
      >>> carry, h = jl.time_aware_lstm_step(params, carry, x)
      >>> h.shape
      (2, 4)

    References:
      Baytas, Xiao, Zhang, Wang, Jain and Zhou 2017, Patient subtyping via time-aware LSTM
      networks, KDD, the section on the time-aware LSTM.
    """
    return _unroll.step(params, carry, x)


def _check_input(x):
    check(isinstance(x, TimeAwareLSTMInput), "x", "a TimeAwareLSTMInput", describe(x))
    check_floating(x.values, "x.values")
    check_floating(x.interval, "x.interval")
    check_shape(x.interval, x.values.shape[:-1], "x.interval", "as x.values has it")


def _inputs(params, x):
    _check_input(x)
    check_features(x.values, params.w_x.shape[0], "x.values", "params.w_x")
    interval = jnp.maximum(x.interval.astype(accumulator(x.interval.dtype)), 0)
    discount = 1 / (1 + jnp.log1p(interval / math.e))  # log(e + Δ), exactly 1 at 0
    return project(x.values, params.w_x) + params.b, discount[..., None]


def _recur(params, carry, inputs):
    z, discount = inputs
    for name, state in carry._asdict().items():
        shape = (*z.shape[:-2], params.w_h.shape[0])
        check_shape(state, shape, f"carry.{name}", "as x and params.w_h have it")
    short = tanh(project(carry.c, params.w_short) + params.b_short)
    c = carry.c - (1 - discount) * short
    i, f, g, o = activate(z + project(carry.h, params.w_h), sigmoid, sigmoid, tanh, sigmoid)
    i, f, g, o = named(i=i, f=f, g=g, o=o)
    c = f * c + i * g
    carry = cast(TimeAwareLSTMCarry(c, o * tanh(c)), carry)
    return carry, carry.h


_unroll = HoistedUnroll(_inputs, _recur)


@cell
def time_aware_lstm(hidden: int) -> Parts:
    """An LSTM that knows the time between steps: `time_aware_lstm_step` as a `Cell`.

    Args:
      hidden: H, the size of the states.

    Returns:
      A Cell with inputs `TimeAwareLSTMInput`, params `TimeAwareLSTMParams`, carry
      `TimeAwareLSTMCarry` and output h (*B, H). Params are in the dtype of the values that
      `init` is given; with half precision c is float32, as is the gates' arithmetic.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> times = jnp.array([0.0, 2.0, 30.0, 31.0])
      >>> xs = jl.TimeAwareLSTMInput(jnp.ones((4, 3)), jnp.diff(times, prepend=times[:1]))
      >>> cell = jl.time_aware_lstm(8)
      >>> params = cell.init(jax.random.key(0), jax.tree.map(lambda x: x[0], xs))
      >>> jl.scan(cell, params, xs)[1].shape
      (4, 8)

    References:
      See `time_aware_lstm_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        _check_input(x)
        return init_time_aware_lstm(key, x.values.shape[-1], hidden, dtype=x.values.dtype)

    def initial_carry(params, x, key=None):
        _check_input(x)
        dtype, wide = state_dtypes(params, x.values)
        zeros = lambda dtype: jnp.zeros((*x.values.shape[:-1], hidden), dtype)
        return TimeAwareLSTMCarry(zeros(wide), zeros(dtype))

    return init, initial_carry, time_aware_lstm_step, _unroll
