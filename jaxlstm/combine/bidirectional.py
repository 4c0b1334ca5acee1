"""Both directions of time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Carry, Cell, Layer, Params, cell
from jaxlstm.checks import check, check_options, check_shape
from jaxlstm.sequence import scan


class BidirectionalParams(NamedTuple):
    forward: Params
    backward: Params


class BidirectionalCarry(NamedTuple):
    forward: Carry  # after each sequence's last step
    backward: Carry  # after each sequence's first step


COMBINE = {"concatenate": lambda ys, zs: jnp.concatenate([ys, zs], -1), "sum": jnp.add}


@cell
def bidirectional(forward: Cell, backward: Cell, *, combine: str = "concatenate") -> Layer:
    """Two cells over the same sequence, the second from its end, and their outputs together.

    Each sequence of a ragged batch is reversed within its own length.

    Args:
      forward: the cell that runs from the first step to the last.
      backward: the cell that runs from the last step to the first; its params are its own.
      combine: `"concatenate"` for the outputs side by side, `"sum"` for their sum.

    Returns:
      A Layer with params `BidirectionalParams`, carry `BidirectionalCarry` and output
      (T, *B, H_forward + H_backward), or (T, *B, H) for the sum.

    Raises:
      ValueError: if either is not a Cell, or there is no such `combine`; for the sum, when
        applied, if the outputs differ in shape.

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
    check(combine in COMBINE, "combine", f"one of {list(COMBINE)}", repr(combine))

    def init(key, x):
        keys = jax.random.split(key)
        return BidirectionalParams(forward.init(keys[0], x), backward.init(keys[1], x))

    def apply(params, xs, carry=None, *, key=None, **options):
        check_options(options)
        keys = (None, None) if key is None else jax.random.split(key)
        starts = (None, None) if carry is None else carry
        ahead, ys = scan(forward, params.forward, xs, starts[0], key=keys[0], **options)
        options = {**options, "key": keys[1], "reverse": True}
        back, zs = scan(backward, params.backward, xs, starts[1], **options)
        if combine == "sum":
            check_shape(zs, ys.shape, "backward", "as the forward outputs have it")
        return BidirectionalCarry(ahead, back), COMBINE[combine](ys, zs)

    return Layer(init, apply)
