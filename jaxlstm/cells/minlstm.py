"""The minimal LSTM: gates of the input alone, and a state that is linear in itself."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check_features, check_floating, check_size
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import gates, named, sigmoid
from jaxlstm.kernels.recurrence import project
from jaxlstm.linear_recurrence import LinearUnroll


class MinLSTMParams(NamedTuple):
    w_x: Array  # (D, 3, H)  gates i, f, g
    b: Array  # (3, H)


class MinLSTMCarry(NamedTuple):
    h: Array  # (*B, H)  hidden state; float32 where x is of half precision


def init_minlstm(
    key: Array, features: int, hidden: int, *, dtype: Any = jnp.float32
) -> MinLSTMParams:
    """Draws the params of a minimal LSTM: Glorot, and zero biases.

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
      >>> from jaxlstm import init_minlstm
      >>> init_minlstm(jax.random.key(0), features=3, hidden=4).w_x.shape
      (3, 3, 4)
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    draw = lambda key: jax.nn.initializers.glorot_uniform()(key, (features, hidden), dtype)
    w_x = jnp.stack([draw(k) for k in jax.random.split(key, 3)], 1)
    return MinLSTMParams(w_x, jnp.zeros((3, hidden), dtype))


def minlstm_step(
    params: MinLSTMParams, carry: MinLSTMCarry, x: Array
) -> tuple[MinLSTMCarry, Array]:
    """One step of a minimal LSTM.

        i = σ(x W_i + b_i)
        f = σ(x W_f + b_f)
        g = x W_g + b_g
        h' = (f ⊙ h + i ⊙ g) / (i + f)

    The two gates are scaled to a sum of one, so that the state's size does not depend on time.

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
      >>> from jaxlstm import MinLSTMCarry, init_minlstm, minlstm_step
      >>> params = init_minlstm(jax.random.key(0), features=3, hidden=4)
      >>> carry, h = minlstm_step(params, MinLSTMCarry(jnp.zeros(4)), jnp.ones(3))
      >>> h.shape
      (4,)

    References:
      Feng, Tung, Ahmed, Bengio and Hajimirsadeghi 2024, Were RNNs all we needed?,
      arXiv:2410.01201, section 3.2.
    """
    return _unroll.step(params, carry, x)


def _coefficients(params, x):
    check_features(x, params.w_x.shape[0], "x", "params.w_x")
    i, f, g = gates(project(x, params.w_x) + params.b)
    # f / (i + f) = σ(log f - log i), which never is 0 / 0.
    lead = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)
    f, i, g = named(f=sigmoid(lead), i=sigmoid(-lead), g=g)  # scaled to a sum of one
    return f, i * g


def _dtype(params, x):
    return state_dtypes(params, x)[0]


_unroll = LinearUnroll(_coefficients, _dtype)


@cell
def minlstm(hidden: int) -> Parts:
    """A minimal LSTM: `minlstm_step` as a `Cell`; a sequence is one associative scan.

    Args:
      hidden: H, the size of the state.

    Returns:
      A Cell with params `MinLSTMParams`, carry `MinLSTMCarry` and output h (*B, H). Params are in
      the dtype of the x that `init` is given; with half precision the state is float32.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.minlstm(64), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `minlstm_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        check_floating(x, "x")
        return init_minlstm(key, x.shape[-1], hidden, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        _, wide = state_dtypes(params, x)
        return MinLSTMCarry(jnp.zeros((*x.shape[:-1], hidden), wide))

    return init, initial_carry, minlstm_step, _unroll
