"""Both directions of time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Carry, Cell, Layer, Params, cell
from jaxlstm.checks import check
from jaxlstm.sequence import scan


class BidirectionalParams(NamedTuple):
    forward: Params
    backward: Params


class BidirectionalCarry(NamedTuple):
    forward: Carry  # after each sequence's last step
    backward: Carry  # after each sequence's first step


@cell
def bidirectional(forward: Cell, backward: Cell) -> Layer:
    """Two cells over the same sequence, the second from its end, their outputs side by side.

    Each sequence of a ragged batch is reversed within its own length.

    Args:
      forward: the cell that runs from the first step to the last.
      backward: the cell that runs from the last step to the first; its params are its own.

    Returns:
      A Layer with params `BidirectionalParams`, carry `BidirectionalCarry` and output
      (T, *B, H_forward + H_backward).

    Raises:
      ValueError: if either is not a Cell.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> both, xs = jl.bidirectional(jl.lstm(8), jl.lstm(8)), jnp.ones((5, 2, 3))
      >>> params = both.init(jax.random.key(0), xs[0])
      >>> carry, ys = both.apply(params, xs, lengths=jnp.array([5, 2]))
      >>> ys.shape
      (5, 2, 16)

    References:
      Schuster and Paliwal 1997, IEEE Transactions on Signal Processing 45(11); Graves and
      Schmidhuber 2005, Neural Networks 18, with LSTM cells.
    """
    check(isinstance(forward, Cell), "forward", "a Cell", repr(forward))
    check(isinstance(backward, Cell), "backward", "a Cell", repr(backward))

    def init(key, x):
        keys = jax.random.split(key)
        return BidirectionalParams(forward.init(keys[0], x), backward.init(keys[1], x))

    def apply(params, xs, *, key=None, **options):
        keys = (None, None) if key is None else jax.random.split(key)
        ahead, ys = scan(forward, params.forward, xs, key=keys[0], **options)
        back, zs = scan(backward, params.backward, xs, key=keys[1], reverse=True, **options)
        return BidirectionalCarry(ahead, back), jnp.concatenate([ys, zs], -1)

    return Layer(init, apply)
