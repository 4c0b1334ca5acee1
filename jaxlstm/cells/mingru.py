"""The minimal GRU: gates of the input alone, and a state that is linear in itself."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check_features, check_floating, check_size
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import gates, named, sigmoid
from jaxlstm.kernels.recurrence import project
from jaxlstm.linear_recurrence import LinearUnroll


class MinGRUParams(NamedTuple):
    w_x: Array  # (D, 2, H)  gates z, g
    b: Array  # (2, H)


class MinGRUCarry(NamedTuple):
    h: Array  # (*B, H)  hidden state; float32 where x is of half precision


def init_mingru(
    key: Array, features: int, hidden: int, *, dtype: Any = jnp.float32
) -> MinGRUParams:
    """Draws the params of a minimal GRU: Glorot, and zero biases.

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
      >>> from jaxlstm import init_mingru
      >>> init_mingru(jax.random.key(0), features=3, hidden=4).w_x.shape
      (3, 2, 4)
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    draw = lambda key: jax.nn.initializers.glorot_uniform()(key, (features, hidden), dtype)
    w_x = jnp.stack([draw(k) for k in jax.random.split(key, 2)], 1)
    return MinGRUParams(w_x, jnp.zeros((2, hidden), dtype))


def mingru_step(params: MinGRUParams, carry: MinGRUCarry, x: Array) -> tuple[MinGRUCarry, Array]:
    """One step of a minimal GRU.

        z = σ(x W_z + b_z)
        g = x W_g + b_g
        h' = (1 - z) ⊙ h + z ⊙ g

    z opens for what comes in, as in the paper; in `jaxlstm.gru_step` it keeps the state.

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
      >>> from jaxlstm import MinGRUCarry, init_mingru, mingru_step
      >>> params = init_mingru(jax.random.key(0), features=3, hidden=4)
      >>> carry, h = mingru_step(params, MinGRUCarry(jnp.zeros(4)), jnp.ones(3))
      >>> h.shape
      (4,)

    References:
      Feng, Tung, Ahmed, Bengio and Hajimirsadeghi 2024, Were RNNs all we needed?,
      arXiv:2410.01201, section 3.1.
    """
    return _unroll.step(params, carry, x)


def _coefficients(params, x):
    check_features(x, params.w_x.shape[0], "x", "params.w_x")
    z, g = gates(project(x, params.w_x) + params.b)
    keep, (new, g) = sigmoid(-z), named(z=sigmoid(z), g=g)
    return keep, new * g


def _dtype(params, x):
    return state_dtypes(params, x)[0]


_unroll = LinearUnroll(_coefficients, _dtype)


@cell
def mingru(hidden: int) -> Parts:
    """A minimal GRU: `mingru_step` as a `Cell`; a sequence is one associative scan.

    Args:
      hidden: H, the size of the state.

    Returns:
      A Cell with params `MinGRUParams`, carry `MinGRUCarry` and output h (*B, H). Params are in
      the dtype of the x that `init` is given; with half precision the state is float32.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.mingru(64), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `mingru_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        check_floating(x, "x")
        return init_mingru(key, x.shape[-1], hidden, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        _, wide = state_dtypes(params, x)
        return MinGRUCarry(jnp.zeros((*x.shape[:-1], hidden), wide))

    return init, initial_carry, mingru_step, _unroll
