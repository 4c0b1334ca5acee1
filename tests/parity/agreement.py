"""Agreement with an outside oracle: held to a tolerance, and written down for docs/parity.md."""

import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxlstm as jl

RECORD = "JAXLSTM_PARITY_RECORD"  # a file that `make parity` reads; unset: nothing is written


def agree(actual, expected, tolerance, *, cell, options="", oracle, what="values"):
    """Holds two trees to each other: |a - e| at most tolerance times max(1, the largest |e|).

    Args:
      actual: ours.
      expected: the oracle's, of the same structure.
      tolerance: of a difference.
      cell: the factory, "lstm".
      options: of the cell and the scan, "projection, lengths".
      oracle: "PyTorch", "NumPy loop", ...
      what: "values" or "gradients".
    """
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected) > 0
    largest, both = 0.0, f"{cell} ({options}) and {oracle}: {what}"
    for a, e in zip(actual, expected, strict=True):
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        assert a.shape == e.shape, f"{both} of shapes {a.shape} and {e.shape}"
        assert np.isfinite([*a.flat, *e.flat]).all(), f"{both} that are not finite"
        if e.size:
            largest = max(largest, float(np.abs(a - e).max() / max(1.0, np.abs(e).max())))
    assert largest <= tolerance, f"{both} differ by {largest:.2e}"
    if os.environ.get(RECORD):
        row = dict(cell=cell, options=options, oracle=oracle, what=what)
        row |= dict(tolerance=tolerance, largest=largest)
        with Path(os.environ[RECORD]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def agree_with_gradients(ours, theirs, arguments, tolerance, **labels):
    """Holds two JAX functions to each other, in values and in the gradients of all arguments.

    Args:
      ours: a function of `arguments`.
      theirs: the oracle's; its outputs have the same leaves in the same order.
      arguments: trees of arrays.
      tolerance: of both.
      **labels: as for `agree`, without `what`.
    """

    @jax.jit
    def both(*arguments):
        (a, pull_a), (e, pull_e) = jax.vjp(ours, *arguments), jax.vjp(theirs, *arguments)
        seeds = jax.tree.leaves(random(e, 1))
        seed = lambda tree: jax.tree.unflatten(jax.tree.structure(tree), seeds)
        return a, e, pull_a(seed(a)), pull_e(seed(e))

    a, e, gradient_a, gradient_e = both(*arguments)
    agree(a, e, tolerance, **labels)
    agree(gradient_a, gradient_e, tolerance, **labels, what="gradients")


def random(tree, seed):
    """Normal numbers in float64, in a tree of the same shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), tree)


def agree_with_steps(cell, convert, step, weights, carry, x, *, oracle, options=""):
    """Holds a cell over a ragged batch to a JAX library's over each sequence alone, in float64.

    Both sum the same products in another order, over at most seven steps of a few units: 1e-12.

    Args:
      cell: ours.
      convert: from their weights to our params.
      step: theirs, `(weights, carry, x) -> (carry, y)` of one sequence.
      weights: theirs, of which only the shapes count.
      carry: theirs, (3, ...), with the leaves of ours in the same order; likewise.
      x: one step of input, (3, ...); likewise.
      oracle: as for `agree`.
      options: of the cell.
    """
    lengths, xs = [7, 0, 4], jnp.zeros((7, *x.shape))
    structure = jax.tree.structure(cell.initial_carry(convert(weights), x))

    def ours(weights, carry, xs):
        carry = jax.tree.unflatten(structure, jax.tree.leaves(carry))
        return jl.scan(cell, convert(weights), xs, carry, lengths=lengths)

    def theirs(weights, carry, xs):
        return one_by_one(functools.partial(step, weights), carry, xs, lengths)

    agree_with_gradients(
        *(ours, theirs, random((weights, carry, xs), 3), 1e-12),
        cell=cell.name.partition("(")[0],
        options=", ".join(filter(None, [options, "lengths"])),
        oracle=oracle,
    )


def one_by_one(step, carry, xs, lengths):
    """Each sequence of a ragged batch over its own steps alone.

    Args:
      step: `(carry, x) -> (carry, y)` of one sequence.
      carry: before the first step, (B, ...).
      xs: (T, B, ...).
      lengths: (B,) integers.

    Returns:
      The last carries, and the outputs (T, B, ...), zero at and after each length.
    """
    lasts, outputs = [], []
    for n, length in enumerate(lengths):
        first = jax.tree.map(lambda a: a[n], carry)  # noqa: B023  used at once
        last, ys = jax.lax.scan(step, first, xs[:length, n])
        lasts.append(last)
        outputs.append(jnp.zeros((len(xs), *ys.shape[1:])).at[:length].set(ys))
    return jax.tree.map(lambda *a: jnp.stack(a), *lasts), jnp.stack(outputs, 1)
