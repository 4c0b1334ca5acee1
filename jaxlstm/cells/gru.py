"""Gated recurrent unit, with the reset gate after the recurrent product."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check_floating, check_size
from jaxlstm.gated import GatedUnroll, Weights, gated_step, state_dtypes
from jaxlstm.gates import activate, gates, named, sigmoid, tanh
from jaxlstm.initializers import gate_weights
from jaxlstm.kernels.recurrence import Known


class GRUParams(NamedTuple):
    w_x: Array  # (D, 3, H)  gates r, z, n
    w_h: Array  # (H, 3, H)
    b: Array  # (3, H)
    b_n: Array  # (H,)  inside the reset gate's product


class GRUCarry(NamedTuple):
    h: Array  # (*B, H)  hidden state


def init_gru(key: Array, features: int, hidden: int, *, dtype: Any = jnp.float32) -> GRUParams:
    """Draws the params of a GRU: Glorot, orthogonal gate by gate, and zero biases.

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
      >>> from jaxlstm import init_gru
      >>> params = init_gru(jax.random.key(0), features=3, hidden=4)
      >>> params.w_x.shape, params.b_n.shape
      ((3, 3, 4), (4,))
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    w_x, w_h = gate_weights(key, features, hidden, (3,), dtype)
    return GRUParams(w_x, w_h, jnp.zeros((3, hidden), dtype), jnp.zeros(hidden, dtype))


def gru_update(
    b_n: Array, carry: GRUCarry, z: Array, u: Array, *, candidate: Array | None = None
) -> GRUCarry:
    """The elementwise part of `gru_step`, of z = x W + b and u = h U, both (*B, 3, H).

    `candidate` (*B, H) multiplies n, for `recurrent_dropout`.
    """
    (z_r, z_z, z_n), (u_r, u_z, u_n) = gates(z), gates(u)
    r, keep = activate(jnp.stack([z_r + u_r, z_z + u_z], -2), sigmoid, sigmoid)
    r, keep = named(r=r, z=keep)
    (n,) = named(n=tanh(z_n + r * (u_n + b_n)))
    n = n if candidate is None else n * candidate
    return GRUCarry((1 - keep) * n + keep * carry.h)


def gru_step(params: GRUParams, carry: GRUCarry, x: Array) -> tuple[GRUCarry, Array]:
    """One step of a gated recurrent unit, the reset after the product as in cuDNN.

        r = σ(x W_r + h U_r + b_r)
        z = σ(x W_z + h U_z + b_z)
        n = tanh(x W_n + b_n + r ⊙ (h U_n + b'_n))
        h' = (1 - z) ⊙ n + z ⊙ h

    As PyTorch, and Keras with `reset_after=True`. Later versions of the paper have r ⊙ h before
    the product: `jaxlstm.gru_reset_before_step`. Chung et al. have z and 1 - z the other way round.

    Args:
      params: the weights; `b_n` is b', `b[2]` the candidate's other bias.
      carry: the state before, h (*B, H).
      x: (*B, D) floating point.

    Returns:
      The state after, in the dtype of the one before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import GRUCarry, gru_step, init_gru
      >>> params = init_gru(jax.random.key(0), features=3, hidden=4)
      >>> carry, h = gru_step(params, GRUCarry(jnp.zeros((2, 4))), jnp.ones((2, 3)))
      >>> h.shape
      (2, 4)

    References:
      Cho et al. 2014, arXiv:1406.1078, eq. 5 to 8 and version 1 for the reset's place; Chung
      et al. 2014, arXiv:1412.3555.
    """
    return gated_step(gru_update, _split(params), carry, x)


def _split(params: GRUParams) -> Weights:
    return Weights(params.w_x, params.w_h, params.b, params.b_n)


_unroll = GatedUnroll(Known(gru_update, "gru"), _split)


@cell
def gru(hidden: int) -> Parts:
    """A gated recurrent unit: `gru_step` as a `Cell`.

    Args:
      hidden: H, the size of the state.

    Returns:
      A Cell with params `GRUParams`, carry `GRUCarry` and output h (*B, H). Params are in the
      dtype of the x that `init` is given.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.gru(64), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `gru_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        check_floating(x, "x")
        return init_gru(key, x.shape[-1], hidden, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, _ = state_dtypes(params, x)
        return GRUCarry(jnp.zeros((*x.shape[:-1], hidden), dtype))

    return init, initial_carry, gru_step, _unroll
