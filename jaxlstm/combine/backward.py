"""A cell from the end of a sequence to its beginning."""

from jaxlstm.base import Cell, Layer, cell
from jaxlstm.checks import check, check_options
from jaxlstm.sequence import scan


@cell
def backward(bare: Cell) -> Layer:
    """A cell that runs from each sequence's last step to its first, as a layer of a stack.

    `scan(..., reverse=True)` as a Layer: layers that take turns in direction are a `stack` of
    cells and of these.

    Args:
      bare: the cell.

    Returns:
      A Layer with the params and outputs of the cell, these at their own times; its carry is
      the one after each sequence's first step.

    Raises:
      ValueError: if `bare` is not a Cell.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> turns, xs = jl.stack(jl.lstm(8), jl.backward(jl.lstm(8))), jnp.ones((5, 2, 3))
      >>> _, ys = turns.apply(turns.init(jax.random.key(0), xs[0]), xs, lengths=jnp.array([5, 2]))
      >>> ys.shape
      (5, 2, 8)

    References:
      Zhou and Xu 2015, End-to-end learning of semantic role labeling using recurrent neural
      networks, ACL: layers in turns.
    """
    check(isinstance(bare, Cell), "bare", "a Cell", repr(bare))

    def apply(params, xs, carry=None, **options):
        check_options(options)
        return scan(bare, params, xs, carry, reverse=True, **options)

    return Layer(bare.init, apply)
