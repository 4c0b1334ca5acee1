"""Initial weights of gated cells."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers

from jaxlstm.base import Array


def gate_weights(
    key: Array, features: int, hidden: int, gates: tuple[int, ...], dtype: Any
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

    Returns:
      (D, *gates, H) and (H, *gates, H).
    """
    wide = jnp.promote_types(dtype, jnp.float32)  # there is no QR factorisation in half precision

    def blocks(key, draw, rows):
        keys = jax.random.split(key, math.prod(gates))
        drawn = jax.vmap(lambda key: draw(key, (rows, hidden), wide))(keys)
        return jnp.moveaxis(drawn, 0, 1).reshape(rows, *gates, hidden).astype(dtype)

    key_x, key_h = jax.random.split(key)
    w_x = blocks(key_x, initializers.glorot_uniform(), features)
    return w_x, blocks(key_h, initializers.orthogonal(), hidden)
