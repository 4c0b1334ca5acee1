"""Formal languages: a key and a length in, a string and what is to be said at each symbol out.

Every function draws one string, padded to `time` symbols: what comes after `length` is of no
account. Lengths are multiples of the language's `unit`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

LONGEST = 500  # symbols of a string of brackets


class String(NamedTuple):
    xs: jax.Array  # (T,) symbols
    targets: jax.Array  # (T, O) after each symbol, 1 for what is right, or may come


class Language(NamedTuple):
    symbols: int
    outputs: int
    unit: int
    sample: Callable[[jax.Array, jax.Array, int], String]  # key, length, time
    last: bool = False  # one class is asked for, after the last symbol; otherwise a set after each


def parity() -> Language:
    """Of bits, whether the number of ones is odd: classes even and odd."""

    def sample(key, length, time):
        xs = random.bernoulli(key, shape=(time,)).astype(int)
        return String(xs, jax.nn.one_hot(xs.cumsum() % 2, 2))

    return Language(2, 2, 1, sample, last=True)


def cycle(places: int = 5) -> Language:
    """Of steps -1, 0 and +1, symbols 0, 1 and 2, where on a cycle they end that begin at 0."""

    def sample(key, length, time):
        xs = random.randint(key, (time,), 0, 3)
        return String(xs, jax.nn.one_hot((xs - 1).cumsum() % places, places))

    return Language(3, places, 1, sample, last=True)


def counting(kinds: int) -> Language:
    """a^n b^n with 2 kinds of symbols, a^n b^n c^n with 3: which may come next; the end is last."""

    def sample(key, length, time):
        n = length // kinds
        t = jnp.arange(time)
        following = jax.nn.one_hot((t + 1) // n, kinds + 1)
        either = jnp.zeros(kinds + 1).at[:2].set(1.0)
        return String(jnp.minimum(t // n, kinds - 1), jnp.where(t[:, None] < n, either, following))

    return Language(kinds, kinds + 1, kinds, sample)


def brackets(kinds: int, depth: int) -> Language:
    """Dyck words: which bracket may be closed; none at depth 0, where the word may end.

    All shapes of the same length and at most this depth are equally likely, and so are the kinds
    of each pair. Symbols are the opening brackets and then the closing ones.
    """
    chance = opening(depth)

    def sample(key, length, time):
        of_shape, of_kinds = random.split(key)
        draws = random.uniform(of_shape, (time,))
        opens = random.randint(of_kinds, (time,), 0, kinds)

        def one(state, s):
            stack, d = state  # kinds of what is open, and how many
            t, draw, kind = s
            left = jnp.maximum(length - t, 0)
            up = draw < jnp.asarray(chance, draw.dtype)[left, d]
            top = jnp.where(up, d, jnp.maximum(d - 1, 0))  # where this bracket stands
            x = jnp.where(up, kind, kinds + stack[top])
            stack = stack.at[top].set(jnp.where(up, kind, stack[top]))
            d = jnp.where(up, d + 1, jnp.maximum(d - 1, 0))
            closes = jax.nn.one_hot(stack[jnp.maximum(d - 1, 0)], kinds) * (d > 0)
            return (stack, d), String(x, closes)

        start = jnp.zeros(depth + 1, int), jnp.int32(0)
        return jax.lax.scan(one, start, (jnp.arange(time), draws, opens))[1]

    return Language(2 * kinds, kinds, 2, sample)


@functools.cache
def opening(depth: int) -> np.ndarray:
    """The chance that the next bracket opens, by how many are left and how many are open.

    With N(r, d) the number of ways to get from depth d to 0 in r steps within bounds,

        N(r, d) = N(r - 1, d + 1) + N(r - 1, d - 1),   chance = N(r - 1, d + 1) / N(r, d).

    Returns:
      (LONGEST + 1, depth + 1).
    """
    ways, chances = np.eye(depth + 3)[1], [np.zeros(depth + 1)]  # a zero at both ends
    for _ in range(LONGEST):
        up, down = ways[2:], ways[:-2]
        total = up + down
        chances.append(np.divide(up, total, out=np.zeros(depth + 1), where=total > 0))
        ways = np.pad(total / total.max(), 1)
    return np.array(chances)
