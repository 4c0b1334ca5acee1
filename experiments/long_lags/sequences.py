"""The tasks of Hochreiter and Schmidhuber 1997, sections 5.2 to 5.6: a key in, a sequence out.

Every function draws one sequence, padded to the longest that there is: what comes after the last
scored step changes nothing before it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import random


class Sequence(NamedTuple):
    xs: jax.Array  # (T, D) floating point, or (T,) integers for inputs of which one is 1
    times: jax.Array  # (K,) the steps at which there is a target
    targets: jax.Array  # (K, O)
    clean: jax.Array  # (K, O) targets without noise, which a test is held to
    weights: jax.Array  # (K,) of the errors


def dense(xs: jax.Array, count: int) -> jax.Array:
    """Inputs (T, `count`), of integers (T,) those that are 1 there; others as they are."""
    return jax.nn.one_hot(xs, count) if jnp.issubdtype(xs.dtype, jnp.integer) else xs


def _at_end(xs: jax.Array, time: jax.Array | int, target: jax.Array) -> Sequence:
    target = jnp.atleast_1d(target)[None]
    return Sequence(xs, jnp.atleast_1d(time), target, target, jnp.ones(1))


def _length(key: jax.Array, time: int) -> jax.Array:
    return random.randint(key, (), time, time + time // 10 + 1)


def regular_lag(key: jax.Array, lag: int, local: bool = True) -> Sequence:
    """Tasks 2a and 2b: y, a_1, ..., a_(p-1), y or x, a_1, ..., a_(p-1), x with p = `lag`.

    Every symbol is to be predicted. With `local` the symbols between come in order, otherwise they
    are drawn from the same, and only the last can be known. Of p + 1 symbols x and y are the last.
    """
    which, between = random.split(key)
    first = lag - 1 + random.bernoulli(which).astype(int)
    middle = jnp.arange(lag - 1)
    if not local:
        middle = random.randint(between, (lag - 1,), 0, lag - 1)
    symbols = jnp.concatenate([first[None], middle, first[None]])
    targets = jax.nn.one_hot(symbols[1:], lag + 1)
    return Sequence(symbols[:-1], jnp.arange(lag), targets, targets, jnp.ones(lag))


def noisy_lag(key: jax.Array, lag: int, distractors: int) -> Sequence:
    """Task 2c: b, x or y, distractors without end, e, and then x or y as at the beginning.

    After q = `lag` distractors e comes with probability 1/10 at each step, so that there is no
    regularity but the one to be learned: the last symbol, of which the outputs are the two. A
    sequence in which e does not come within 120 steps, one of 300,000, ends there.
    """
    which, between, end = random.split(key, 3)
    most = lag + 120
    b, e, x = distractors, distractors + 1, distractors + 2
    first = random.bernoulli(which).astype(int)
    extra = jnp.minimum(random.geometric(end, 0.1) - 1, most - lag)
    symbols = random.randint(between, (most + 3,), 0, distractors)
    symbols = symbols.at[0].set(b).at[1].set(x + first)
    last = 2 + lag + extra
    return _at_end(symbols.at[last].set(e), last, jax.nn.one_hot(first, 2))


def two_sequence(
    key: jax.Array, time: int, informative: int, noise: float = 0.0, noisy_targets: bool = False
) -> Sequence:
    """Tasks 3a, 3b and 3c: which of two classes the first N = `informative` numbers are of.

    They are 1 or -1, with Gaussian noise of variance `noise`; the others are Gaussian, of variance
    0.2. The target is 1 or 0; with `noisy_targets`, 0.8 or 0.2 and noise of variance 0.1.
    """
    which, numbers, about, long = random.split(key, 4)
    most = time + time // 10
    label = random.bernoulli(which).astype(float)
    xs = jnp.sqrt(0.2) * random.normal(numbers, (most,))
    signal = (2 * label - 1) + jnp.sqrt(noise / 0.2) * xs
    xs = jnp.where(jnp.arange(most) < informative, signal, xs)
    clean = 0.2 + 0.6 * label if noisy_targets else label
    sequence = _at_end(xs[:, None], _length(long, time) - 1, clean)
    if noisy_targets:
        noise_of_target = jnp.sqrt(0.1) * random.normal(about, (1, 1))
        sequence = sequence._replace(targets=sequence.targets + noise_of_target)
    return sequence


def marked_pairs(key: jax.Array, time: int, product: bool = False) -> Sequence:
    """Tasks 4 and 5: the sum or the product of the two numbers that are marked.

    The first is among the first ten, the second among the first T/2 - 1 that are not marked. Marks
    are 1, elsewhere 0, and -1 at the last step and always at the first, which, if it is one of the
    two, counts as 0 in a sum and as 1 in a product. Numbers are from [-1, 1] or [0, 1]; the target
    is 0.5 + sum / 4, or the product.
    """
    numbers, one, two, long = random.split(key, 4)
    length = _length(long, time)
    most = time + time // 10
    values = random.uniform(numbers, (most,), minval=0.0 if product else -1.0, maxval=1.0)
    first = random.randint(one, (), 0, 10)
    second = random.randint(two, (), 0, time // 2 - 2)
    second += second >= first
    marks = jnp.zeros(most).at[jnp.array([first, second])].set(1.0)
    marks = marks.at[jnp.array([0, length - 1])].set(-1.0)
    neutral = 1.0 if product else 0.0
    of = lambda at: jnp.where(at == 0, neutral, values[at])
    target = of(first) * of(second) if product else 0.5 + (of(first) + of(second)) / 4
    return _at_end(jnp.stack([values, marks], -1), length - 1, target)


WINDOWS = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}  # first and last time


def temporal_order(key: jax.Array, symbols: int) -> Sequence:
    """Tasks 6a and 6b: in which order 2 or 3 symbols X and Y came.

    Of the 8 symbols E is the first and B the last, after 100 to 110 steps; a, b, c and d stand
    everywhere but at the two or three times, drawn from given windows, that have X or Y. The 4 or 8
    outputs are the orders.
    """
    between, times, which, long = random.split(key, 4)
    length = random.randint(long, (), 100, 111)
    xs = random.randint(between, (110,), 0, 4)
    first, last = jnp.array(WINDOWS[symbols]).T
    at = random.randint(times, (symbols,), first, last + 1)
    kinds = random.bernoulli(which, shape=(symbols,)).astype(int)
    xs = xs.at[at].set(4 + kinds).at[0].set(6).at[length - 1].set(7)
    order = (kinds * 2 ** jnp.arange(symbols)).sum()
    return _at_end(xs, length - 1, jax.nn.one_hot(order, 2**symbols))
