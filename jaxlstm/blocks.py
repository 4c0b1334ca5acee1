"""`lax.scan` by blocks of time."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxlstm.base import is_symbolic


def block_length(time: int, batch: int, rows: int) -> int:
    """Steps to a block: about so many rows, and a divisor of `time` if one is near.

    A remainder is a program of its own to compile. All steps if a size is symbolic: then nobody
    knows how many blocks there are.
    """
    if is_symbolic(time) or is_symbolic(batch):
        return time
    most = max(1, min(time, rows // max(batch, 1)))
    near = chain(range(most, most // 2, -1), range(most + 1, most * 3 // 2 + 1))
    return next((c for c in near if time % c == 0), most)


def in_blocks(body: Callable, carry: Any, xs: Any, length: int, reverse: bool = False) -> Any:
    """`lax.scan` of `body(carry, start, xs)` over blocks of `length` steps, the last maybe shorter.

    `start` is the time of the block's first step.
    """
    time = jax.tree.leaves(xs)[0].shape[0]
    if not isinstance(time, int) or time == length:  # a symbolic time is one block
        return body(carry, 0, xs)
    full, rest = divmod(time, length)
    split = full * length
    head = jax.tree.map(lambda a: a[:split].reshape(full, length, *a.shape[1:]), xs)
    tail = jax.tree.map(lambda a: a[split:], xs)

    def whole(carry):
        if full == 1:
            return body(carry, 0, jax.tree.map(lambda a: a[0], head))
        starts = jnp.arange(full) * length
        carry, ys = lax.scan(lambda c, s: body(c, *s), carry, (starts, head), reverse=reverse)
        return carry, jax.tree.map(lambda a: a.reshape(split, *a.shape[2:]), ys)

    if not rest:
        return whole(carry)
    if reverse:
        carry, last = body(carry, split, tail)
        carry, first = whole(carry)
    else:
        carry, first = whole(carry)
        carry, last = body(carry, split, tail)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, last)
