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
FEW = 8 * 2**20  # bytes that are always kept
WIDE = 768  # features and units from which on more are,
MOST = 256 * 2**20  # up to so many


def emitter(update: Update, inputs: Inputs) -> Callable[[Array, Array], Array] | None:
    """What a step keeps of its z and u (B, *G, H), as a function of them; None for nothing."""
    weights, x, *_ = inputs
    if any(map(is_symbolic, x.shape)):
        return None
    size = dtype_of_gates(inputs).itemsize * weights.b.size
    alone = only_the_sum(update, inputs)
    size *= x.shape[0] * x.shape[1] * (1 if alone else 2)
    wide = sum(w.shape[0] for w in (weights.w_x, weights.w_h)) >= WIDE
    if size > (MOST if wide else FEW):
        return None
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
