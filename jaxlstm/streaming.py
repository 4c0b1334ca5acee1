"""One step of a cell at a time, compiled ahead of time."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from jaxlstm.base import Carry, Cell, Params
from jaxlstm.checks import check
from jaxlstm.sequence import scan


def streaming(
    cell: Cell,
    params: Params,
    x: Any,
    carry: Carry | None = None,
    *,
    implementation: str | None = None,
) -> Callable[[Carry, Any], tuple[Carry, Any]]:
    """A cell's step for a stream of inputs, compiled before the first of them comes.

    It is `scan` over one step, by whichever implementation can serve. Each call writes the new
    carry over the one it is given, which nobody can read after it (`jax.tree.map(jnp.copy, carry)`
    is for whoever needs it): a stream goes on forever in the same memory. For that no array may
    stand in a carry twice.

    Args:
      cell: the cell.
      params: its params.
      x: an input of one step, (*B, D), or its `jax.ShapeDtypeStruct`.
      carry: one like those that there will be, or its shapes; by default those of
        `cell.initial_carry`. Only what belongs to a run, as an attention's memory, has others.
      implementation: as for `scan`.

    Returns:
      A function `(carry, x) -> (carry, y)`, with the params in it. What does not have the shapes
      and dtypes that it was compiled for raises a TypeError.

    Raises:
      ValueError: if an argument does not fit, or a named implementation can't serve.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, x = jl.lstm(8), jnp.ones((1, 3))
      >>> params = cell.init(jax.random.key(0), x)
      >>> step = jl.streaming(cell, params, x)
      >>> carry = cell.initial_carry(params, x)
      >>> for _ in range(3):
      ...   carry, y = step(carry, x)
      >>> y.shape
      (1, 8)
    """
    check(isinstance(cell, Cell), "cell", "a Cell (a Layer needs a whole sequence)", repr(cell))
    if carry is None:
        start = lambda params, x, key: cell.initial_carry(params, x, key)
        carry = jax.eval_shape(start, params, x, jax.random.key(0))

    def step(params, carry, x):
        xs = jax.tree.map(lambda a: a[None], x)
        carry, ys = scan(cell, params, xs, carry, implementation=implementation)
        return carry, jax.tree.map(lambda a: a[0], ys)

    compiled = jax.jit(step, donate_argnums=1).lower(params, carry, x).compile()
    return functools.partial(compiled, params)
