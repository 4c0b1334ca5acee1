"""The mathematics of one gated recurrence, shared by its implementations.

z_t = x_t W + b,   u_t = h_{t-1} U,   carry_t = update(theta, carry_{t-1}, z_t, u_t)
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlstm.base import select


class Weights(NamedTuple):
    """What a gated recurrence multiplies by; G stands for its axes of gates, maybe none."""

    w_x: Any  # (D, *G, H)  W
    w_h: Any  # (R, *G, H)  U
    b: Any  # (*G, H)
    theta: Any = ()  # whatever else `update` needs


class Inputs(NamedTuple):
    """All that a sweep reads, batch axes flattened to one."""

    weights: Weights
    x: Any  # (T, B, D)
    carry: Any  # leaves (B, ...): before the first step
    initial: Any  # the same, put in by a reset; None without resets
    valid: Array | None  # (T, B) booleans; False leaves the carry as it was
    resets: Array | None  # (T, B) booleans; True puts `initial` in before the step


Update = Callable[..., Any]  # (theta, carry, z, u) -> carry


def accumulator(dtype: Any) -> Any:
    """The dtype to sum and to compute gates in: float32 for half precision."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def project(x: Array, w: Array) -> Array:
    """x (..., D) times w (D, *G, H), as (..., *G, H), in the accumulator's dtype."""
    dtype = accumulator(jnp.result_type(x, w))
    flat = jnp.matmul(
        x, w.reshape(w.shape[0], math.prod(w.shape[1:])), preferred_element_type=dtype
    )
    return flat.reshape(*x.shape[:-1], *w.shape[1:])


def advance(update: Update, theta: Any, carry: Any, z: Array, u: Array, valid: Any = None) -> Any:
    """`update`, in the carry's own dtypes, where `valid` holds."""
    new = update(theta, carry, z, u)
    new = jax.tree.map(lambda n, c: n.astype(c.dtype), new, carry)
    return select(valid, new, carry)


def emit(carry: Any, keep: bool) -> Any:
    """What a sweep stacks over time: the whole carry, or its h alone."""
    return carry if keep else carry.h


def previous(carry: Any, carries: Any) -> Any:
    """The carry before each step, of the one before the first and those after each."""
    return jax.tree.map(lambda c, cs: jnp.concatenate([c[None], cs[:-1]]), carry, carries)
