"""Phased LSTM: each unit opens for a part of a period of its own, and keeps its state between."""

from functools import partial
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


class PhasedLSTMInput(NamedTuple):
    values: Array  # (*B, D)
    time: Array  # (*B,)  when the step is


class PhasedLSTMParams(NamedTuple):
    w_x: Array  # (D, 4, H)  gates i, f, g, o
    w_h: Array  # (H, 4, H)
    b: Array  # (4, H)
    log_period: Array  # (H,)  log τ, so that τ stays positive
    shift: Array  # (H,)  s, in units of time
    open_ratio: Array  # (H,)  r_on, the open part of a period


class PhasedLSTMCarry(NamedTuple):
    c: Array  # (*B, H)  cell state; float32 where h is of half precision
    h: Array  # (*B, H)  hidden state


def init_phased_lstm(
    key: Array,
    features: int,
    hidden: int,
    *,
    log_periods: tuple[float, float] = (0.0, 8.0),
    open_ratio: float = 0.05,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> PhasedLSTMParams:
    """Draws the params: Glorot, orthogonal gate by gate, zero biases but f's, and the rhythm.

    Periods are log-uniform, τ = exp(U(0, 8)) as in the paper: from 1 to about 3000 units of
    time, so that either the times or `log_periods` should be scaled to the task. Shifts are
    uniform over a period, U(0, τ).

    Args:
      key: a PRNG key.
      features: D, the size of the values.
      hidden: H, the size of the states.
      log_periods: the range of log τ.
      open_ratio: initial r_on of every unit, in (0, 1]; 0.05 is the paper's.
      forget_bias: initial value of the forget gate's bias.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer, or the range or the ratio is none.

    Example:
      >>> import jax
      >>> from jaxlstm import init_phased_lstm
      >>> params = init_phased_lstm(jax.random.key(0), features=3, hidden=4, log_periods=(1, 2))
      >>> bool((params.log_period > 1).all() & (params.log_period < 2).all())
      True
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    is_range = len(log_periods) == 2 and log_periods[0] <= log_periods[1]
    check(is_range, "log_periods", "the lowest log τ and the highest", repr(log_periods))
    check(0 < open_ratio <= 1, "open_ratio", "a number in (0, 1]", repr(open_ratio))
    of_gates, of_period, of_shift = jax.random.split(key, 3)
    w_x, w_h = gate_weights(of_gates, features, hidden, (4,), dtype)
    low, high = log_periods
    log_period = jax.random.uniform(of_period, (hidden,), dtype, low, high)
    shift = jax.random.uniform(of_shift, (hidden,), dtype) * jnp.exp(log_period)
    return PhasedLSTMParams(
        w_x,
        w_h,
        jnp.zeros((4, hidden), dtype).at[1].set(forget_bias),
        log_period,
        shift,
        jnp.full(hidden, open_ratio, dtype),
    )


def phased_lstm_step(
    params: PhasedLSTMParams, carry: PhasedLSTMCarry, x: PhasedLSTMInput, *, leak: float = 1e-3
) -> tuple[PhasedLSTMCarry, Array]:
    """One step of a phased LSTM, of the values v at time t.

        φ = ((t - s) mod τ) / τ
        k = 2 φ / r_on        if φ < r_on / 2
            2 - 2 φ / r_on    if r_on / 2 < φ < r_on
            α φ               otherwise
        i, f, o = σ(v W + h U + b)
        g = tanh(v W_g + h U_g + b_g)
        c̃ = f ⊙ c + i ⊙ g
        h̃ = o ⊙ tanh(c̃)
        c' = k ⊙ c̃ + (1 - k) ⊙ c
        h' = k ⊙ h̃ + (1 - k) ⊙ h

    Without the peepholes, which the paper has as an option. The phase is in [0, 1) for times
    before s too; its derivatives are those between the jumps of mod. The authors' code has
    t + s, and takes the absolute values of τ and r_on; here τ is an exponential, and a unit
    whose r_on is not positive does not open.

    Args:
      params: the weights and the rhythm.
      carry: the states before, c and h (*B, H).
      x: values (*B, D) and time (*B,), both floating point. The time may have a wider dtype
        than the values; the phase is computed in it.
      leak: α, how far a closed unit stays open, so that it has a gradient. The paper trains
        with 0.001 and tests with 0.

    Returns:
      The states after, in the dtypes of those before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> params = jl.init_phased_lstm(jax.random.key(0), features=3, hidden=4)
      >>> x = jl.PhasedLSTMInput(jnp.ones((2, 3)), jnp.array([0.0, 30.0]))
      >>> carry = jl.PhasedLSTMCarry(c=jnp.ones((2, 4)), h=jnp.zeros((2, 4)))
      >>> carry, h = jl.phased_lstm_step(params, carry, x)
      >>> h.shape
      (2, 4)

    References:
      Neil, Pfeiffer and Liu 2016, Phased LSTM: accelerating recurrent network training for
      long or event-based sequences, arXiv:1610.09513, the section on the model.
    """
    return _unroll(leak).step(params, carry, x)


def _check_input(x):
    check(isinstance(x, PhasedLSTMInput), "x", "a PhasedLSTMInput", describe(x))
    check_floating(x.values, "x.values")
    check_floating(x.time, "x.time")
    check_shape(x.time, x.values.shape[:-1], "x.time", "as x.values has it")


def _openness(params, time, leak):
    """k (*B, H)."""
    time = time.astype(accumulator(time.dtype))
    turns = (time[..., None] - params.shift) * jnp.exp(-params.log_period.astype(time.dtype))
    phase = turns - jnp.floor(turns)
    is_open = phase < params.open_ratio
    # Zero and one where it is closed: a ratio of zero there would divide in the gradient.
    rise = 2 * jnp.where(is_open, phase, 0) / jnp.where(is_open, params.open_ratio, 1)
    return jnp.where(is_open, jnp.minimum(rise, 2 - rise), leak * phase)


def _inputs(params, x, leak):
    _check_input(x)
    check_features(x.values, params.w_x.shape[0], "x.values", "params.w_x")
    z = project(x.values, params.w_x) + params.b
    return z, *named(k=_openness(params, x.time, leak))


def _recur(params, carry, inputs):
    z, k = inputs
    for name, state in carry._asdict().items():
        shape = (*z.shape[:-2], params.w_h.shape[0])
        check_shape(state, shape, f"carry.{name}", "as x and params.w_h have it")
    i, f, g, o = activate(z + project(carry.h, params.w_h), sigmoid, sigmoid, tanh, sigmoid)
    i, f, g, o = named(i=i, f=f, g=g, o=o)
    c = f * carry.c + i * g
    h = o * tanh(c)
    between = lambda new, old: k * new + (1 - k) * old
    carry = cast(PhasedLSTMCarry(between(c, carry.c), between(h, carry.h)), carry)
    return carry, carry.h


def _unroll(leak):
    return HoistedUnroll(partial(_inputs, leak=leak), _recur)


@cell
def phased_lstm(hidden: int, *, leak: float = 1e-3) -> Parts:
    """An LSTM whose units have periods: `phased_lstm_step` as a `Cell`.

    Args:
      hidden: H, the size of the states.
      leak: α, how far a closed unit stays open; the params do not depend on it, so that the
        cell with 0 evaluates what another one trained.

    Returns:
      A Cell with inputs `PhasedLSTMInput`, params `PhasedLSTMParams`, carry `PhasedLSTMCarry`
      and output h (*B, H). Params are in the dtype of the values that `init` is given; with
      half precision c is float32, as is the gates' arithmetic.

    Raises:
      ValueError: if `hidden` is not a positive integer, or `leak` not in [0, 1].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> xs = jl.PhasedLSTMInput(jnp.ones((4, 3)), jnp.array([0.0, 2.0, 30.0, 31.0]))
      >>> cell = jl.phased_lstm(8)
      >>> params = cell.init(jax.random.key(0), jax.tree.map(lambda x: x[0], xs))
      >>> jl.scan(cell, params, xs)[1].shape
      (4, 8)

    References:
      See `phased_lstm_step`.
    """
    check_size(hidden, "hidden")
    check(0 <= leak <= 1, "leak", "a number in [0, 1]", repr(leak))

    def init(key, x):
        _check_input(x)
        return init_phased_lstm(key, x.values.shape[-1], hidden, dtype=x.values.dtype)

    def initial_carry(params, x, key=None):
        _check_input(x)
        dtype, wide = state_dtypes(params, x.values)
        zeros = lambda dtype: jnp.zeros((*x.values.shape[:-1], hidden), dtype)
        return PhasedLSTMCarry(zeros(wide), zeros(dtype))

    return init, initial_carry, partial(phased_lstm_step, leak=leak), _unroll(leak)
