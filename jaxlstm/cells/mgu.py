"""The minimal gated unit: a GRU whose two gates are one."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check_features, check_floating, check_shape, check_size
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import named, sigmoid, tanh
from jaxlstm.hoisted import HoistedUnroll
from jaxlstm.initializers import gate_weights
from jaxlstm.kernels.recurrence import project


class MGUParams(NamedTuple):
    w_x: Array  # (D, 2, H)  gates f, n
    w_h: Array  # (H, 2, H)
    b: Array  # (2, H)


class MGUCarry(NamedTuple):
    h: Array  # (*B, H)  hidden state


def init_mgu(
    key: Array,
    features: int,
    hidden: int,
    *,
    forget_bias: float = 0.0,
    dtype: Any = jnp.float32,
) -> MGUParams:
    """Draws the params of an MGU: Glorot, orthogonal gate by gate, and zero biases.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the state.
      forget_bias: initial value of the forget gate's bias. f lets the new in, so that, other
        than in an LSTM, what is negative remembers longer.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer.

    Example:
      >>> import jax
      >>> from jaxlstm import init_mgu
      >>> init_mgu(jax.random.key(0), features=3, hidden=4).w_x.shape
      (3, 2, 4)
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    w_x, w_h = gate_weights(key, features, hidden, (2,), dtype)
    return MGUParams(w_x, w_h, jnp.zeros((2, hidden), dtype).at[0].set(forget_bias))


def mgu_step(params: MGUParams, carry: MGUCarry, x: Array) -> tuple[MGUCarry, Array]:
    """One step of a minimal gated unit.

        f = σ(x W_f + h U_f + b_f)
        n = tanh(x W_n + (f ⊙ h) U_n + b_n)
        h' = (1 - f) ⊙ h + f ⊙ n

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
      >>> from jaxlstm import MGUCarry, init_mgu, mgu_step
      >>> params = init_mgu(jax.random.key(0), features=3, hidden=4)
      >>> carry, h = mgu_step(params, MGUCarry(jnp.zeros((2, 4))), jnp.ones((2, 3)))
      >>> h.shape
      (2, 4)

    References:
      Zhou, Wu, Zhang and Zhou 2016, Minimal gated unit for recurrent neural networks,
      arXiv:1603.09420, table 1 (d).
    """
    return _unroll.step(params, carry, x)


def _inputs(params, x):
    check_features(x, params.w_x.shape[0], "x", "params.w_x")
    return project(x, params.w_x) + params.b


def _weights(params):
    return params.w_h[:, 0], params.w_h[:, 1]


def _recur(weights, carry, z):
    (h,), (w_f, w_n) = carry, weights
    check_shape(h, (*z.shape[:-2], w_f.shape[0]), "carry.h", "as x and params.w_h have it")
    (f,) = named(f=sigmoid(z[..., 0, :] + project(h, w_f)))
    (n,) = named(n=tanh(z[..., 1, :] + project(f.astype(h.dtype) * h, w_n)))
    h = ((1 - f) * h + f * n).astype(h.dtype)
    return MGUCarry(h), h


_unroll = HoistedUnroll(_inputs, _recur, _weights)


@cell
def mgu(hidden: int) -> Parts:
    """A minimal gated unit: `mgu_step` as a `Cell`.

    Args:
      hidden: H, the size of the state.

    Returns:
      A Cell with params `MGUParams`, carry `MGUCarry` and output h (*B, H). Params are in the
      dtype of the x that `init` is given.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.mgu(64), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `mgu_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        check_floating(x, "x")
        return init_mgu(key, x.shape[-1], hidden, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, _ = state_dtypes(params, x)
        return MGUCarry(jnp.zeros((*x.shape[:-1], hidden), dtype))

    return init, initial_carry, mgu_step, _unroll
