"""Ways around a layer: its input added to its output, or beside it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxlstm import sequence
from jaxlstm.base import Cell, Layer, cell
from jaxlstm.checks import check, check_shape


class AroundUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` of the bare cell, joined with its input afterwards."""

    bare: Cell
    join: Callable[[Any, Any], Any]

    def __call__(self, params, carry, xs, **options):
        carry, ys = sequence.unroll(self.bare, params, carry, xs, **options)
        return carry, self.join(xs, ys)

    def explain(self, params, xs):
        return sequence.explain(self.bare, params, xs)


def _around(bare: Cell | Layer, join: Callable[[Any, Any], Any]) -> Any:
    check(isinstance(bare, Cell | Layer), "bare", "a Cell or a Layer", repr(bare))
    if isinstance(bare, Cell):

        def step(params, carry, x):
            carry, y = bare.step(params, carry, x)
            return carry, join(x, y)

        return Cell(bare.init, bare.initial_carry, step, AroundUnroll(bare, join))
    check(bare.shorten is None, "bare", "a layer whose outputs are as many as its inputs", bare)

    def apply(params, xs, carry=None, *, lengths=None, mask=None, **options):
        carry, ys = bare.apply(params, xs, carry, lengths=lengths, mask=mask, **options)
        return carry, join(sequence.valid_steps(xs, lengths, mask), ys)

    return Layer(bare.init, apply)


def _add(x, y):
    check_shape(y, x.shape, "the output", "as the input has it, to add them")
    return x + y


@cell
def residual(bare: Cell | Layer) -> Any:
    """A layer whose input is added to its output: y = x + layer(x).

    Args:
      bare: a Cell or Layer whose output has the size of its input.

    Returns:
      A Cell if `bare` is one, else a Layer; params and carry are those of `bare`.

    Raises:
      ValueError: if `bare` is neither; at a step, if input and output differ in shape.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> deep, xs = jl.stack(jl.lstm(8), *[jl.residual(jl.lstm(8))] * 3), jnp.ones((10, 2, 3))
      >>> jl.scan(deep, deep.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 2, 8)

    References:
      Wu et al. 2016, Google's neural machine translation system, arXiv:1609.08144, section 3.1.
    """
    return _around(bare, _add)


@cell
def skip(bare: Cell | Layer) -> Any:
    """A layer whose input goes on beside its output: y = [layer(x); x].

    In a stack, each layer sees the outputs of all before it, and the first input.

    Args:
      bare: a Cell or Layer.

    Returns:
      A Cell if `bare` is one, else a Layer; params and carry are those of `bare`, and the
      output is (*B, H + D).

    Raises:
      ValueError: if `bare` is neither.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> deep, xs = jl.stack(jl.skip(jl.lstm(8)), jl.lstm(8)), jnp.ones((10, 2, 3))
      >>> params = deep.init(jax.random.key(0), xs[0])
      >>> params[1].w_x.shape
      (11, 4, 8)

    References:
      Graves 2013, arXiv:1308.0850, section 2.1, for the connections from the input to all
      layers.
    """
    return _around(bare, lambda x, y: jnp.concatenate([y, x.astype(y.dtype)], -1))
