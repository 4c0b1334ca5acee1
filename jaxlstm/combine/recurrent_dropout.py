"""Recurrent dropout without memory loss: of the candidate alone."""

import inspect
from functools import partial
from typing import Any, NamedTuple

import jax

from jaxlstm.base import Array, Carry, Cell, Params, Persistent, cell
from jaxlstm.checks import check
from jaxlstm.combine.noise import each, needed, sequence_keys, split_keys
from jaxlstm.gated import GatedUnroll, gated_step


class RecurrentDropoutCarry(NamedTuple):
    carry: Carry  # of the bare cell
    keys: Persistent  # (*B,)  PRNG keys, one a sequence


def recurrent_dropout_step(
    bare: Cell, params: Params, carry: Carry, x: Array, mask: Array
) -> tuple[Carry, Array]:
    """One step of a gated cell whose candidate is multiplied by a mask.

        c' = f ⊙ c + i ⊙ (m ⊙ g)              of an LSTM
        h' = (1 - z) ⊙ (m ⊙ n) + z ⊙ h        of a GRU

    What is remembered is never dropped.

    Args:
      bare: an `lstm` or a `gru` with any options.
      params: its params.
      carry: its carry.
      x: (*B, D) floating point.
      mask: (*B, H)  m, 0 or 1 / (1 - rate).

    Returns:
      The cell's carry after, and its output.

    Raises:
      ValueError: if the cell has no candidate to drop, or x or the carry does not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, x = jl.lstm(2), jnp.ones(3)
      >>> params = cell.init(jax.random.key(0), x)
      >>> carry = jl.LSTMCarry(c=jnp.zeros(2), h=jnp.zeros(2))
      >>> _, h = jl.recurrent_dropout_step(cell, params, carry, x, jnp.array([0.0, 2.0]))
      >>> (h == 0).tolist()
      [True, False]

    References:
      Semeniuta, Severyn and Barth 2016, arXiv:1603.05118, eq. 9 to 11 and 13.
    """
    unroll = _droppable(bare)
    return gated_step(partial(unroll.update, candidate=mask), unroll.split(params), carry, x)


def _droppable(bare: Any) -> GatedUnroll:
    check(isinstance(bare, Cell), "bare", "a Cell", repr(bare))
    unroll = bare.unroll
    gated = isinstance(unroll, GatedUnroll)
    fits = gated and "candidate" in inspect.signature(unroll.update).parameters
    check(fits, "bare", "a cell with a candidate to drop, an lstm or a gru", repr(bare))
    return unroll


@cell
def recurrent_dropout(bare: Cell, rate: float) -> Cell:
    """A gated cell with dropout of its candidate, drawn anew at each step: for training.

    Each sequence has a key of its own in the carry, so that its noise does not depend on the
    others of its batch, on padding, or on `vmap`. A sequence runs by `lax.scan` of the step.
    To evaluate, use the bare cell with the same params.

    Args:
      bare: an `lstm` or a `gru` with any options.
      rate: how much of the candidate to drop, in [0, 1).

    Returns:
      A Cell with the params of the bare one and the carry `RecurrentDropoutCarry`.

    Raises:
      ValueError: if the cell has no candidate to drop, or the rate is outside of [0, 1); when an
        initial carry is made, if there is no key.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.lstm(8), jnp.ones((5, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> noisy = jl.recurrent_dropout(cell, 0.25)
      >>> carry, ys = jl.scan(noisy, params, xs, key=jax.random.key(1))  # training
      >>> _, ys = jl.scan(cell, params, xs)  # evaluation

    References:
      Semeniuta, Severyn and Barth 2016, Recurrent dropout without memory loss, arXiv:1603.05118,
      with a mask for each step.
    """
    unroll = _droppable(bare)
    check(0 <= rate < 1, "rate", "a number in [0, 1)", repr(rate))

    def initial_carry(params, x, key=None):
        of_carry, of_keys = jax.random.split(needed(key, bare, "recurrent_dropout"))
        keys = sequence_keys(of_keys, x.shape[:-1])
        return RecurrentDropoutCarry(bare.initial_carry(params, x, of_carry), Persistent(keys))

    def step(params, carry, x):
        hidden = unroll.split(params).b.shape[-1]
        keys, now = split_keys(carry.keys.value, 2)
        draw = lambda key: jax.random.bernoulli(key, 1 - rate, (hidden,)) / (1 - rate)
        inner, y = recurrent_dropout_step(bare, params, carry.carry, x, each(draw, now))
        return RecurrentDropoutCarry(inner, Persistent(keys)), y

    return Cell(bare.init, initial_carry, step)
