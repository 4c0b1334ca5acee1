"""A network that reads a sequence of symbols and then writes another: encoder and decoder.

The decoder begins with the encoder's last carry, and its first input is END. Symbols are numbers;
0 is END, which both sequences end with.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxlstm as jl
from jaxlstm import Cell

END = 0


class Params(NamedTuple):
    words: jax.Array  # (symbols read, H) embedding
    encoder: Any
    actions: jax.Array  # (symbols written, H) embedding
    decoder: Any
    w: jax.Array  # (H, symbols written)
    b: jax.Array  # (symbols written,)


class Batch(NamedTuple):
    xs: jax.Array  # (S, B) symbols to read
    x_lengths: jax.Array  # (B,)
    ys: jax.Array  # (T, B) symbols to write
    y_lengths: jax.Array  # (B,)


def init(key: jax.Array, cell: Cell, units: int, words: int, actions: int) -> Params:
    keys = jax.random.split(key, 5)
    embedding = lambda key, count: jax.random.normal(key, (count, units))
    return Params(
        embedding(keys[0], words),
        cell.init(keys[1], jnp.zeros(units)),
        embedding(keys[2], actions),
        cell.init(keys[3], jnp.zeros(units)),
        jax.random.normal(keys[4], (units, actions)) / units**0.5,
        jnp.zeros(actions),
    )


def loss(cell: Cell, params: Params, batch: Batch) -> jax.Array:
    """Cross-entropy of all that is to be written, summed over a sequence, mean over the batch.

    The decoder's inputs are what it should have written (teacher forcing).
    """
    carry = _read(cell, params, batch.xs, batch.x_lengths)
    first = jnp.full_like(batch.ys[:1], END)
    inputs = params.actions[jnp.concatenate([first, batch.ys[:-1]])]
    _, hs = jl.scan(cell, params.decoder, inputs, carry, lengths=batch.y_lengths)
    losses = optax.softmax_cross_entropy_with_integer_labels(hs @ params.w + params.b, batch.ys)
    written = jnp.arange(len(batch.ys))[:, None] < batch.y_lengths
    return (losses * written).sum(0).mean()


def right(cell: Cell, params: Params, batch: Batch) -> jax.Array:
    """Whether the network writes all of each sequence, END included, by itself, greedily: (B,)."""

    def write(state, _):
        carry, y = state
        carry, h = cell.step(params.decoder, carry, params.actions[y])
        y = (h @ params.w + params.b).argmax(-1).astype(batch.ys.dtype)
        return (carry, y), y

    first = _read(cell, params, batch.xs, batch.x_lengths), jnp.full_like(batch.ys[0], END)
    _, ys = jax.lax.scan(write, first, None, len(batch.ys))
    after = jnp.arange(len(ys))[:, None] >= batch.y_lengths
    return ((ys == batch.ys) | after).all(0)


def _read(cell, params, xs, lengths):
    return jl.scan(cell, params.encoder, params.words[xs], lengths=lengths)[0]
