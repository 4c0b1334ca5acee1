"""A first carry that is learned."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Carry, Cell, Params, cell
from jaxlstm.checks import check, check_size


class LearnedStartParams(NamedTuple):
    cell: Params  # of the bare cell
    start: Carry  # its first carry, without batch axes; of half precision where the params are


class StartUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` of the bare cell with its params taken out."""

    bare: Cell

    def __call__(self, params, carry, xs, **options):
        return self.bare.unroll(params.cell, carry, xs, **options)

    def explain(self, params, xs):
        return self.bare.unroll.explain(params.cell, xs)


@cell
def learned_start(bare: Cell, *, axes: int = 1) -> Cell:
    """A cell whose carry before the first step, and after each reset, is a part of its params.

    Begins with the bare cell's own initial carry, mostly zeros, as it is at `init`: a `mean` put
    into a GRU-D's params later has to be put into `start.last` too.

    Args:
      bare: a cell that draws nothing for its carry, which is floating point throughout.
      axes: how many axes an input has without time and batch: 1 for (D,), 3 for pictures.

    Returns:
      A Cell with params `LearnedStartParams` and the carry and outputs of the bare one.

    Raises:
      ValueError: if `bare` is not a Cell, or `axes` not a positive integer; at `init`, if the
        carry needs a key or is not floating point.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.learned_start(jl.gru(8)), jnp.ones((5, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> params.start.h.shape
      (8,)
      >>> loss = lambda params: (jl.scan(cell, params, xs)[1] ** 2).sum()
      >>> bool(jax.grad(loss)(params).start.h.any())
      True
    """
    check(isinstance(bare, Cell), "bare", "a Cell", repr(bare))
    check_size(axes, "axes")

    def init(key, x):
        params = bare.init(key, x)
        batch = len(jax.tree.leaves(x)[0].shape) - axes
        alone = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[batch:], a.dtype), x)
        start = bare.initial_carry(params, alone)
        floating = lambda a: jnp.issubdtype(a.dtype, jnp.floating)
        check(all(map(floating, jax.tree.leaves(start))), "bare", "a floating-point carry", bare)
        dtype = jax.tree.leaves(x)[0].dtype
        return LearnedStartParams(params, jax.tree.map(lambda a: a.astype(dtype), start))

    def initial_carry(params, x, key=None):
        like = jax.eval_shape(lambda p: bare.initial_carry(p, x), params.cell)
        # Copied: a carry may be written over, as `streaming` does, and the params may not.
        spread = lambda a, s: jnp.array(jnp.broadcast_to(a, s.shape), s.dtype)
        return jax.tree.map(spread, params.start, like)

    def step(params, carry, x):
        return bare.step(params.cell, carry, x)

    return Cell(init, initial_carry, step, None if bare.unroll is None else StartUnroll(bare))
