"""How a step comes by z and u: of a block's products before the loop, or of one of its own.

The product of x is made for a block at once, that of h at each step. On a CPU, XLA makes a small
product on one core (JAX 0.10 and 0.12, whose tasks `tasks` counts); where x and h side by side make
one large enough for two, that replaces both, if x is not wider than h.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlstm.base import is_symbolic
from jaxlstm.kernels import residual
from jaxlstm.kernels.reading import by_gates, gate_by_gate, only_the_sum
from jaxlstm.kernels.recurrence import Inputs, Update, project

ROWS = 128  # of a product, above which it is split by them
COST = 2**16  # (rows + columns) times terms, from which on no task is made larger

# z, u and what is to be kept of them; of the part of `times` that is the step's, and h (B, R)
OfStep = Callable[[Any, Array], tuple[Array, Array, Array]]
# `times`, OfStep, and the Residual of what all steps have given to keep; of a block's x (T, B, D)
OfBlock = Callable[[Array], tuple[Any, OfStep, Callable[[Array], residual.Residual]]]


def of_blocks(update: Update, inputs: Inputs) -> OfBlock:
    """The products of a sequence's blocks, in the way that suits its shapes."""
    if _as_one(update, inputs):
        return _at_each_step(inputs)
    weights, x, *_ = inputs
    apart = not any(map(is_symbolic, x.shape)) and x.shape[0] > 1 and gate_by_gate(update, inputs)

    def of_block(x):
        zs = project(x, weights.w_x)
        times, with_bias = by_gates(zs, weights.b) if apart else (zs, lambda z: z + weights.b)

        def of_step(now, h):
            u = project(h, weights.w_h)
            return with_bias(now), u, u  # here, where XLA makes one loop of it and the gates

        return times, of_step, lambda us: residual.of_steps(update, inputs, zs + weights.b, us)

    return of_block


def _at_each_step(inputs):
    weights = inputs.weights
    both = jnp.concatenate([weights.w_x, weights.w_h])

    def of_step(x, h):
        z = project(jnp.concatenate([x, h], -1), both) + weights.b
        return z, jnp.zeros_like(z), z

    return lambda x: (x, of_step, lambda zs: residual.Residual(zs, None))


def _as_one(update, inputs):
    weights, x, carry, *_ = inputs
    batch, features = x.shape[1:]
    units = weights.w_h.shape[0]
    if any(map(is_symbolic, x.shape)) or jax.default_backend() != "cpu" or features > units:
        return False
    alone, both = (tasks(batch, weights.b.size, terms) for terms in (units, features + units))
    alike = x.dtype == carry.h.dtype and weights.w_x.dtype == weights.w_h.dtype
    return batch <= ROWS and alone == 1 < both and alike and only_the_sum(update, inputs)


def tasks(rows: int, columns: int, terms: int) -> int:
    """Of how many tasks XLA's CPU backend makes a product of at most 128 rows.

    Args:
      rows: of the left factor.
      columns: of the right factor.
      terms: of each sum.
    """
    rows, each = 1 << (rows - 1).bit_length(), 64
    while each < columns and (rows + each) * min(terms, 1024) < COST:
        each *= 2
    return -(-columns // each)
