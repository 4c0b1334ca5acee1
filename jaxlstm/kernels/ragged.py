"""Blocks of time over a ragged batch: what ends early is left out of the blocks after its end.

Sequences are taken in the order of their last busy steps, the latest first, so that those which
a block needs are the first ones. How many these are is only known when the program runs, and
XLA's shapes are fixed: there is a program for each of a few numbers of them, and the smallest
that has room runs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlstm.base import is_symbolic
from jaxlstm.blocks import in_blocks
from jaxlstm.kernels.recurrence import on_one_device

SHARES = (1 / 4, 1 / 2)  # of the batch, for which there are programs beside that for all
LEAST = 8  # sequences in a batch, and
BLOCKS = 4  # blocks, that are worth it: each program has to be compiled

# Of a block: ((by_row, whole), start, xs, of_rows) -> ((by_row, whole), ys). Leaves of by_row are
# (B, ...), of xs and ys (C, B, ...); `of_rows` takes the same sequences from any other (B, ...).
Block = Callable[[tuple[Any, Any], Any, Any, Callable], tuple[tuple[Any, Any], Any]]


def where_busy(valid: Array | None, resets: Array | None) -> Array | None:
    """(T, B) the steps that may change a carry; None for all."""
    return valid if valid is None or resets is None else valid | resets


def in_ragged_blocks(
    block: Block,
    by_row: Any,
    whole: Any,
    xs: Any,
    busy: Array | None,
    length: int,
    reverse: bool = False,
) -> tuple[tuple[Any, Any], Any]:
    """`in_blocks`, each block over no more sequences than it needs, or hardly more.

    What a block gives of sequences that it leaves out is zero in ys; their by_row stays.

    Args:
      block: the body.
      by_row: the part of the state with a batch axis, leaves (B, ...).
      whole: the part without one.
      xs: leaves (T, B, ...).
      busy: (T, B) the steps that may change by_row; None for a batch that is not ragged.
      length: steps to a block.
      reverse: whether to begin with the last block.

    Returns:
      The state (by_row, whole) after all blocks; ys, leaves (T, B, ...).
    """
    if busy is None or not _worth_it(busy, length):
        every = lambda state, start, s: block(state, start, s, lambda tree: tree)
        return in_blocks(every, (by_row, whole), xs, length, reverse)
    time, batch = busy.shape
    ends = jnp.max(jnp.where(busy, jnp.arange(1, time + 1)[:, None], 0), 0)
    order = jnp.argsort(-ends)
    back = jnp.argsort(order)
    sizes = sorted({int(batch * share) for share in SHARES} - {0})
    taken = lambda rows: lambda tree: jax.tree.map(lambda a: a[rows], tree)

    def of_all(state, start, s):
        by_row, whole = state
        (by_row, whole), ys = block((taken(back)(by_row), whole), start, s, lambda tree: tree)
        return (taken(order)(by_row), whole), ys

    def of_first(size):
        rows = order[:size]

        def run(state, start, s):
            by_row, whole = state
            first = jax.tree.map(lambda a: a[:size], by_row)
            few = jax.tree.map(lambda a: a[:, rows], s)
            (first, whole), ys = block((first, whole), start, few, taken(rows))
            by_row = jax.tree.map(lambda a, all: all.at[:size].set(a), first, by_row)
            return (by_row, whole), jax.tree.map(spread, ys)

        return run

    def spread(ys):
        rest = jnp.zeros((ys.shape[0], batch - ys.shape[1], *ys.shape[2:]), ys.dtype)
        return jnp.concatenate([ys, rest], 1)[:, back]

    programs = [*map(of_first, sizes), of_all]

    def run(state, start, s):
        needed = jnp.sum(ends > start)
        return lax.switch(jnp.searchsorted(jnp.array(sizes), needed), programs, state, start, s)

    (by_row, whole), ys = in_blocks(run, (taken(order)(by_row), whole), xs, length, reverse)
    return (taken(back)(by_row), whole), ys


def _worth_it(busy: Array, length: int) -> bool:
    time, batch = busy.shape
    if is_symbolic(time) or is_symbolic(batch) or jax.default_backend() != "cpu":
        return False
    return on_one_device() and batch >= LEAST and time >= BLOCKS * length
