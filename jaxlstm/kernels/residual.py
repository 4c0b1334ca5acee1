"""What the blocked forward sweep keeps for the backward one beside the carries.

z and u, or nothing. They save the backward sweep two products a block, and cost memory that is
new to the process: to get its pages takes longer than the products, unless there are few of them
or these are large.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxlstm.base import is_symbolic
from jaxlstm.kernels.reading import dtype_of_gates, only_the_sum
from jaxlstm.kernels.recurrence import Inputs, Update

FEW = 8 * 2**20  # bytes that are always kept,
MIDDLE, MANY = 144, 16 * 2**20  # so many from that many features and units on,
WIDE, MOST = 384, 256 * 2**20  # or so many; z and u kept apart: half, and MOST from 2 WIDE on


class Residual(NamedTuple):
    """What is kept, of no step (0, B, *G, H) what is not."""

    z: Any  # (T, B, *G, H)  z, or z + u where nothing else counts
    u: Any  # (T, B, *G, H)  u, of no step where it is in z


def kept_bytes(update: Update, inputs: Inputs) -> int:
    """Of z and u, or of their sum where nothing else counts; 0 where they are not kept."""
    weights, x, *_ = inputs
    if any(map(is_symbolic, x.shape)):
        return 0
    parts = 1 if only_the_sum(update, inputs) else 2
    size = dtype_of_gates(inputs).itemsize * weights.b.size * x.shape[0] * x.shape[1] * parts
    features = weights.w_x.shape[0] + weights.w_h.shape[0]
    limit = (MANY if features >= MIDDLE else FEW) // parts
    return size if size <= (MOST if features >= WIDE * parts else limit) else 0


def of_steps(update: Update, inputs: Inputs, z: Array, u: Array) -> Residual:
    """Of a block's z and u (T, B, *G, H), after its loop: there XLA makes slow code of it."""
    return Residual(z + u, None) if only_the_sum(update, inputs) else Residual(z, u)


def whole(inputs: Inputs, kept: Residual | None) -> Residual:
    """`kept`, with arrays of no step for what is None."""
    weights, x, *_ = inputs
    nothing = jnp.zeros((0, x.shape[1], *weights.b.shape), dtype_of_gates(inputs))
    return Residual(*(nothing if a is None else a for a in kept or (None, None)))


def steps(kept: Residual | None) -> Residual | None:
    """What of it has steps, None for the rest: `whole` undone."""
    if kept is None or not len(kept.z):
        return None
    return Residual(kept.z, kept.u if len(kept.u) else None)
