"""What the blocked forward sweep keeps for the backward one beside the carries.

z and u, or nothing. They save the backward sweep two products a block, and cost memory that is
new to the process: to get its pages takes longer than the products, unless there are few of them
or these are large.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxlstm.base import is_symbolic
from jaxlstm.kernels.reading import dtype_of_gates, only_the_sum
from jaxlstm.kernels.recurrence import Inputs, Kept, Update

LEAF = 0  # an array: (T, B, 1, *G, H) of z + u, (T, B, 2, *G, H) of z and u, (0, B, 1, *G, H)
MANY = 16 * 2**20  # bytes that are always kept
WIDE = 384  # features and units from which on more are, twice that where z and u are kept apart,
MOST = 256 * 2**20  # up to so many


def kept_bytes(update: Update, inputs: Inputs) -> int:
    """Of z and u, or of their sum where nothing else counts; 0 where they are not kept."""
    weights, x, *_ = inputs
    if any(map(is_symbolic, x.shape)):
        return 0
    parts = 1 if only_the_sum(update, inputs) else 2
    size = dtype_of_gates(inputs).itemsize * weights.b.size * x.shape[0] * x.shape[1] * parts
    wide = weights.w_x.shape[0] + weights.w_h.shape[0] >= WIDE * parts
    return size if size <= (MOST if wide else MANY) else 0


def emitter(update: Update, inputs: Inputs) -> Callable[[Array, Array], Array] | None:
    """What a step keeps of its z and u (B, *G, H), as a function of them; None for nothing."""
    if not kept_bytes(update, inputs):
        return None
    alone = only_the_sum(update, inputs)
    return lambda z, u: jnp.stack([z + u] if alone else [z, u], 1)


def nothing(inputs: Inputs) -> Array:
    """What is kept where nothing is."""
    weights, x, *_ = inputs
    return jnp.zeros((0, x.shape[1], 1, *weights.b.shape), dtype_of_gates(inputs))


def is_there(kept: Kept) -> bool:
    """Whether there is something."""
    return kept.residual is not None and kept.residual.shape[0] > 0


def parts(kept: Array) -> tuple[Array, Array]:
    """z and u (T, B, *G, H); z + u and zeros where only the sum counts."""
    return kept[:, :, 0], kept[:, :, 1] if kept.shape[2] == 2 else jnp.zeros_like(kept[:, :, 0])
