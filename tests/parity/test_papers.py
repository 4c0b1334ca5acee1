"""Every cell against a loop of its paper's equations in NumPy, one unit of time and batch at once.

Both sum the same products in another order, in float64, over at most seven steps: 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.testing.oracle import draw
from tests.papers import gated as papers
from tests.parity.agreement import agree

T, B, D, H = 7, 3, 4, 5
STEP = jax.ShapeDtypeStruct((B, D), jnp.float64)
# name: (cell, its step by the paper, one step of input if it is not (B, D))
CASES = {
    "janet": (jl.janet(H), papers.janet),
    "mgu": (jl.mgu(H), papers.mgu),
}


def by_the_paper(step, params, xs, carry, lengths):
    """Last carries and outputs, sequence by sequence; `step` sees no batch axis."""
    of = lambda tree, *at: jax.tree.map(lambda a: np.asarray(a)[at], tree)
    params, lasts, outputs = of(params, ...), [], []
    for n, length in enumerate(lengths):
        last, ys = of(carry, n), []
        for t in range(length):
            last, y = step(params, last, of(xs, t, n))
            ys.append(y)
        lasts.append(last)
        outputs.append(ys)
    blank = jax.tree.map(np.zeros_like, next(ys[0] for ys in outputs if ys))
    outputs = [ys + [blank] * (max(lengths) - len(ys)) for ys in outputs]
    stacked = lambda trees: jax.tree.map(lambda *a: np.stack(a), *trees)
    return stacked(lasts), stacked([stacked(steps) for steps in zip(*outputs, strict=True)])


@pytest.mark.parametrize("name", CASES)
def test_paper(name):
    cell, step, *given = CASES[name]
    case = draw(cell, jax.random.key(3), *(given or [STEP]), T)
    lengths = [T, 0, 4]
    actual = jl.scan(cell, *case[:3], lengths=lengths)
    expected = by_the_paper(step, *case[:3], lengths)
    cell_name, _, options = name.partition(" ")
    agree(actual, expected, 1e-12, cell=cell_name, options=options, oracle="NumPy loop")
