"""GRU-D: a gated recurrent unit for series with missing values."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check, check_features, check_floating, check_shape, check_size, describe
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import gates, named, sigmoid, tanh
from jaxlstm.hoisted import HoistedUnroll
from jaxlstm.initializers import gate_weights
from jaxlstm.kernels.recurrence import accumulator, project


class GRUDInput(NamedTuple):
    values: Array  # (*B, D)  anything, NaN included, where nothing is observed
    observed: Array  # (*B, D)  booleans, or floating-point 0 and 1
    interval: Array  # (*B, D)  time since the variable was last observed before


class GRUDParams(NamedTuple):
    w_x: Array  # (D, 3, H)  gates r, z, n
    w_m: Array  # (D, 3, H)  of what is observed
    w_h: Array  # (H, 3, H)
    b: Array  # (3, H)
    w_decay_x: Array  # (D,)
    b_decay_x: Array  # (D,)
    w_decay_h: Array  # (D, H)
    b_decay_h: Array  # (H,)
    mean: Array  # (D,)  of each variable, over the training data


class GRUDCarry(NamedTuple):
    h: Array  # (*B, H)  hidden state
    last: Array  # (*B, D)  each variable's last observed value; before any, its mean


def init_gru_d(
    key: Array,
    features: int,
    hidden: int,
    *,
    mean: Any = None,
    dtype: Any = jnp.float32,
) -> GRUDParams:
    """Draws the params of a GRU-D.

    Glorot, orthogonal gate by gate, and zero biases. The weights of the decays are uniform in
    (0, 1) for the input and (0, 1/D) for the state, whose rate is a sum over D variables: in
    units of time in which an interval is about 1. They are drawn positive since a decay has
    no gradient while W δ + b is below 0; the authors' code begins with zeros.

    Args:
      key: a PRNG key.
      features: D, the number of variables.
      hidden: H, the size of the state.
      mean: (D,) the mean of each variable over what is observed of it in the training data;
        None for zeros, the mean of a standardised variable.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer, or `mean` not (D,).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import init_gru_d
      >>> params = init_gru_d(jax.random.key(0), features=2, hidden=4, mean=jnp.array([7.0, 37.0]))
      >>> params.w_decay_h.shape, params.mean.tolist()
      ((2, 4), [7.0, 37.0])
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    mean = jnp.zeros(features, dtype) if mean is None else jnp.asarray(mean, dtype)
    check_shape(mean, (features,), "mean", "as features has it")
    of_gates, of_mask, of_decay_x, of_decay_h = jax.random.split(key, 4)
    w_x, w_h = gate_weights(of_gates, features, hidden, (3,), dtype)
    w_m, _ = gate_weights(of_mask, features, hidden, (3,), dtype)
    zeros = lambda *shape: jnp.zeros(shape, dtype)
    return GRUDParams(
        w_x,
        w_m,
        w_h,
        zeros(3, hidden),
        jax.random.uniform(of_decay_x, (features,), dtype),
        zeros(features),
        jax.random.uniform(of_decay_h, (features, hidden), dtype) / features,
        zeros(hidden),
        mean,
    )


def gru_d_step(params: GRUDParams, carry: GRUDCarry, x: GRUDInput) -> tuple[GRUDCarry, Array]:
    """One step of a GRU-D.

    Of the values v, of which m = 1 says that they are observed, and the intervals δ:

        γ_x = exp(-max(0, w_γx ⊙ δ + b_γx)),  γ_h = exp(-max(0, δ W_γh + b_γh))
        x̂ = m ⊙ v + (1 - m) ⊙ (γ_x ⊙ last + (1 - γ_x) ⊙ mean)
        ĥ = γ_h ⊙ h
        r = σ(x̂ W_r + ĥ U_r + m V_r + b_r)
        z = σ(x̂ W_z + ĥ U_z + m V_z + b_z)
        n = tanh(x̂ W_n + (r ⊙ ĥ) U_n + m V_n + b_n)
        h' = (1 - z) ⊙ ĥ + z ⊙ n
        last' = m ⊙ v + (1 - m) ⊙ last

    with V = `params.w_m`. As in the paper, z is the part that is new: what is 1 - z in
    `jaxlstm.gru_step` and PyTorch. The authors' code differs from the paper: z ⊙ h + (1 - z) ⊙ n
    with h not decayed, V of 1 - m, and zero as the mean. A variable that was never observed has
    its mean as `last`, so that the mean is what it is taken for, at any interval. The paper's
    mean is a constant: leave it out of what an optimiser changes. A value that is not observed
    reaches no value and no gradient, be it NaN.

    Args:
      params: the weights.
      carry: the state before, h (*B, H), and the last observed values, (*B, D).
      x: values (*B, D) floating point, observed (*B, D) and interval (*B, D) floating point,
        in the unit of time that the decays are learned in; `observation_intervals` gives it.

    Returns:
      The carry after, in the dtypes of the one before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import GRUDCarry, GRUDInput, gru_d_step, init_gru_d
      >>> params = init_gru_d(jax.random.key(0), features=2, hidden=4)
      >>> x = GRUDInput(jnp.array([0.5, jnp.nan]), jnp.array([True, False]), jnp.array([1.0, 3.0]))
      >>> carry, h = gru_d_step(params, GRUDCarry(jnp.zeros(4), jnp.array([0.1, 0.2])), x)
      >>> h.shape, carry.last.tolist()
      ((4,), [0.5, 0.20000000298023224])

    References:
      Che, Purushotham, Cho, Sontag and Liu 2018, Recurrent neural networks for multivariate
      time series with missing values, Scientific Reports 8, arXiv:1606.01865, the section on
      GRU-D.
    """
    return _unroll.step(params, carry, x)


def observation_intervals(observed: Array, times: Array) -> Array:
    """The time since each variable was last observed, for `GRUDInput`.

        δ_0 = 0,  δ_t = s_t - s_{t-1}, plus δ_{t-1} where nothing was observed at t-1

    For a scan with `reverse=True`, flip both along time before, and the result after.

    Args:
      observed: (T, *B, D) booleans, or 0 and 1.
      times: (T, *B) floating point, s: when each step is.

    Returns:
      (T, *B, D), in the dtype and unit of `times`.

    Raises:
      ValueError: if the shapes do not fit, or `times` is not floating point.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm import observation_intervals
      >>> observed = jnp.array([[True], [False], [True], [True]])
      >>> observation_intervals(observed, jnp.array([0.0, 0.5, 2.0, 5.0]))[:, 0].tolist()
      [0.0, 0.5, 2.0, 3.0]

    References:
      Che et al. 2018, arXiv:1606.01865, the section on notations.
    """
    check_floating(times, "times")
    fits = hasattr(observed, "shape") and observed.shape[:-1] == times.shape != ()
    expected = f"the axes of times, {times.shape}, and one of variables"
    check(fits, "observed", expected, describe(observed))
    t = jnp.arange(len(times)).reshape(-1, *(1,) * times.ndim)
    last = lax.cummax(jnp.where(observed != 0, t, 0))
    before = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])
    times = jnp.broadcast_to(times[..., None], observed.shape)
    return times - jnp.take_along_axis(times, before, 0)


def _check_input(x):
    check(isinstance(x, GRUDInput), "x", "a GRUDInput", describe(x))
    check_floating(x.values, "x.values")
    check_floating(x.interval, "x.interval")
    check_shape(x.observed, x.values.shape, "x.observed", "as x.values has it")
    check_shape(x.interval, x.values.shape, "x.interval", "as x.values has it")


def _inputs(params, x):
    _check_input(x)
    check_features(x.values, params.w_x.shape[0], "x.values", "params.w_x")
    decay = lambda rate: jnp.exp(-jnp.maximum(rate, 0))
    interval = x.interval.astype(accumulator(x.interval.dtype))
    m = x.observed.astype(x.values.dtype)
    return (
        m * jnp.where(x.observed != 0, x.values, 0),
        1 - m,
        decay(interval * params.w_decay_x + params.b_decay_x),
        decay(project(interval, params.w_decay_h) + params.b_decay_h),
        project(m, params.w_m) + params.b,
    )


def _recur(params, carry, inputs):
    known, missing, decay_x, decay_h, z = inputs
    (h, last), w_h = carry, params.w_h
    check_shape(h, (*z.shape[:-2], w_h.shape[0]), "carry.h", "as x and params.w_h have it")
    check_shape(last, known.shape, "carry.last", "as x.values has it")
    x = known + missing * (decay_x * last + (1 - decay_x) * params.mean)
    h = (decay_h * h).astype(carry.h.dtype)
    a_r, a_z, a_n = gates(z + project(x.astype(h.dtype), params.w_x))
    u_r, u_z = gates(project(h, w_h[:, :2]))
    r, z = named(r=sigmoid(a_r + u_r), z=sigmoid(a_z + u_z))
    (n,) = named(n=tanh(a_n + project(r.astype(h.dtype) * h, w_h[:, 2])))
    h = ((1 - z) * h + z * n).astype(h.dtype)
    return GRUDCarry(h, (known + missing * last).astype(last.dtype)), h


_unroll = HoistedUnroll(_inputs, _recur)


@cell
def gru_d(hidden: int) -> Parts:
    """A GRU for series with missing values: `gru_d_step` as a `Cell`.

    Args:
      hidden: H, the size of the state.

    Returns:
      A Cell with inputs `GRUDInput`, params `GRUDParams`, carry `GRUDCarry` and output h
      (*B, H). Params are in the dtype of the values that `init` is given, and `mean` is zero:
      `params._replace(mean=...)` for another.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> values, times = jnp.array([[0.5], [jnp.nan], [0.2]]), jnp.array([0.0, 0.7, 3.0])
      >>> observed = ~jnp.isnan(values)
      >>> xs = jl.GRUDInput(values, observed, jl.observation_intervals(observed, times))
      >>> cell = jl.gru_d(8)
      >>> params = cell.init(jax.random.key(0), jax.tree.map(lambda x: x[0], xs))
      >>> jl.scan(cell, params, xs)[1].shape
      (3, 8)

    References:
      See `gru_d_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        _check_input(x)
        return init_gru_d(key, x.values.shape[-1], hidden, dtype=x.values.dtype)

    def initial_carry(params, x, key=None):
        _check_input(x)
        dtype, _ = state_dtypes(params, x.values)
        h = jnp.zeros((*x.values.shape[:-1], hidden), dtype)
        return GRUDCarry(h, jnp.broadcast_to(params.mean, x.values.shape).astype(dtype))

    return init, initial_carry, gru_d_step, _unroll
