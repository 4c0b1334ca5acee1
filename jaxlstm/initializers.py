"""Initial weights of gated cells."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers

from jaxlstm.base import Array


def gate_weights(
    key: Array,
    features: int,
    hidden: int,
    gates: tuple[int, ...],
    dtype: Any,
    recurrent: int | None = None,
) -> tuple[Array, Array]:
    """Input and recurrent weights, each gate's block drawn by itself.

    Input blocks are Glorot uniform (Glorot and Bengio 2010, eq. 16), recurrent blocks
    orthogonal (Saxe et al. 2014, arXiv:1312.6120). Keras and Flax's NNX draw one orthogonal
    (H, 4H) matrix instead, of which no gate's block is orthogonal.

    Args:
      key: a PRNG key.
      features: D.
      hidden: H.
      gates: the shape of the axes of gates: `(4,)` for an LSTM, `()` for none.
      dtype: of the weights.
      recurrent: R, the size of what is fed back; None for H.

    Returns:
      (D, *gates, H) and (R, *gates, H).
    """

    def blocks(key, draw):
        drawn = jax.vmap(draw)(jax.random.split(key, math.prod(gates)))
        drawn = jnp.moveaxis(drawn, 0, 1).astype(dtype)
        return drawn.reshape(drawn.shape[0], *gates, hidden)

    key_x, key_h = jax.random.split(key)
    wide = jnp.promote_types(dtype, jnp.float32)  # drawn so, and then rounded
    glorot = lambda key: initializers.glorot_uniform()(key, (features, hidden), wide)
    rows = hidden if recurrent is None else recurrent
    turn = lambda key: orthogonal(key, max(rows, hidden), wide)[:rows, :hidden]
    return blocks(key_x, glorot), blocks(key_h, turn)


def orthogonal(key: Array, size: int, dtype: Any = jnp.float32) -> Array:
    """A random orthogonal matrix, uniform over all of them (Haar).

    A product of reflections H_k, each of a normal vector's first k entries onto an axis, with
    random signs. `jax.nn.initializers.orthogonal` draws from the same distribution by a QR
    factorisation; but several batched ones at once, as in `jit` of a stack's init, can wait
    for one another for ever on a CPU with few threads (jaxlib 0.10 and 0.12).

    Args:
      key: a PRNG key.
      size: n, of rows and columns.
      dtype: float32 or float64.

    Returns:
      (n, n).

    References:
      Stewart 1980, The efficient generation of random orthogonal matrices, SIAM Journal on
      Numerical Analysis 17(3).
    """
    normal = jax.random.normal(key, (size, size), dtype)
    place = jnp.arange(size)

    def reflect(k, q):
        x = jnp.where(place >= k, normal[k], 0)
        sign = jnp.where(x[k] < 0, -1, 1).astype(dtype)
        v = x + sign * jnp.linalg.norm(x) * (place == k)
        q = q - jnp.outer(q @ v, 2 * v / (v @ v))
        return q * jnp.where(place == k, -sign, 1)

    return jax.lax.fori_loop(0, size, reflect, jnp.eye(size, dtype=dtype))
