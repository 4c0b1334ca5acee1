"""What the laws are held against: random cases, and a scan by its definition."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.base import Array, Carry, Cell, Params, Persistent
from jaxlstm.checks import check, describe


class Case(NamedTuple):
    params: Params
    xs: Any  # (T, B, D)
    carry: Carry
    key: Array
    lengths: np.ndarray  # (B,)  one is zero
    mask: np.ndarray  # (T, B)
    resets: np.ndarray  # (T, B)  one is at the first step


def draw(cell: Cell, key: Array, x: Any, time: int = 5) -> Case:
    """Draws params, a ragged batch of sequences of `time` steps, and a carry."""
    for a in jax.tree.leaves(x):
        batched = len(a.shape) > (0 if isinstance(x, tuple) else 1)
        check(a.dtype == np.float64 and batched, "x", "(B, D) in float64", describe(a))
    of_params, of_carry, of_run = jax.random.split(key, 3)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    first = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), x)
    params = stirred(rng, jax.jit(cell.init)(of_params, first))
    carry = stirred(rng, jax.jit(cell.initial_carry)(params, first, of_carry))
    xs = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=(time, *a.shape))), x)
    chance = np.random.default_rng(0).uniform(size=(2, time, jax.tree.leaves(x)[0].shape[0]))
    mask, resets = chance[0] < 0.8, chance[1] < 0.3
    resets[:1, 0] = True
    lengths = np.resize([time, 0, (time + 1) // 2], mask.shape[1])
    return Case(params, xs, carry, of_run, lengths, mask, resets)


def alone(
    cell: Cell, params: Params, xs: Any, carry: Carry, reverse: bool = False, **options: Any
) -> tuple[Carry, Any]:
    """`jaxlstm.scan` by its definition: each sequence, each segment of it, each step, apart."""
    x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), xs)
    time, batch = jax.tree.leaves(xs)[0].shape[:2]
    of = lambda tree, *at: jax.tree.map(lambda a: a[at], tree)
    put = lambda tree, value, *at: jax.tree.map(lambda a, v: a.at[at].set(v), tree, value)
    step = jax.jit(cell.step)
    y = jax.eval_shape(step, params, carry, x)[1]
    ys = jax.tree.map(lambda a: jnp.zeros((time, *a.shape), a.dtype), y)
    initial = cell.initial_carry(params, x, options.get("key")) if "resets" in options else carry
    for n in range(batch):
        length = int(options["lengths"][n]) if "lengths" in options else time
        flag = lambda name, n=n: options[name][:, n] if name in options else None
        last = of(carry, n)
        segments = _segments(length, flag("mask"), flag("resets"), reverse)
        for number, segment in enumerate(segments):
            last = _begun(of(initial, n), last) if number else last
            for t in segment:
                last, y = step(params, last, of(xs, t, n))
                ys = put(ys, y, t, n)
        carry = put(carry, last, n)
    return carry, ys


def stirred(rng, tree):
    """`tree` with noise on its floating-point leaves, but for what is Persistent.

    NumPy's numbers, for which nothing is compiled.
    """
    kept = lambda a: isinstance(a, Persistent)
    still = lambda a: kept(a) or not jnp.issubdtype(a.dtype, jnp.floating)
    noisy = lambda a: jnp.asarray(a + 0.3 * rng.normal(size=a.shape), a.dtype)
    return jax.tree.map(lambda a: a if still(a) else noisy(np.asarray(a)), tree, is_leaf=kept)


def _segments(length, mask, resets, reverse):
    """The times of a sequence's steps in the order of the run, apart where it begins anew."""
    segments = [[]]
    for t in range(length):
        if resets is not None and resets[t] and not (reverse and t == 0):
            segments.append([])
        if mask is None or mask[t]:
            segments[-1].append(t)
    return [segment[::-1] for segment in segments[::-1]] if reverse else segments


def _begun(initial, last):
    keep = lambda i, c: c if isinstance(c, Persistent) else i
    return jax.tree.map(keep, initial, last, is_leaf=lambda a: isinstance(a, Persistent))
