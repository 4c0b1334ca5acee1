"""The mathematics of one gated recurrence, shared by its implementations.

z_t = x_t W + b,   u_t = h_{t-1} U,   carry_t = update(theta, carry_{t-1}, z_t, u_t)

and, if there is a projection P, carry_t's h is then h P.
"""

import dataclasses
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
    projection: Any = None  # (H, R)  P, of the h that `update` gives; None for none, R = H


class Inputs(NamedTuple):
    """All that a sweep reads, batch axes flattened to one."""

    weights: Weights
    x: Any  # (T, B, D)
    carry: Any  # leaves (B, ...): before the first step
    initial: Any  # the same, put in by a reset; None without resets
    valid: Array | None  # (T, B) booleans; False leaves the carry as it was
    resets: Array | None  # (T, B) booleans; True puts `initial` in before the step


Update = Callable[..., Any]  # (theta, carry, z, u) -> carry


@dataclasses.dataclass(frozen=True)
class Known:
    """An update that has a name, by which an implementation may have it built in."""

    update: Update
    name: str

    @property
    def __wrapped__(self) -> Update:  # whose signature `inspect` shows
        return self.update

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.update(*arguments, **options)


class Kept(NamedTuple):
    """What a forward sweep keeps for its derivatives."""

    carries: Any  # after each step, leaves (T, B, ...)
    residual: Any  # whatever else its implementation's backward sweep reads, leaves (T, B, ...)


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


def inner(weights: Weights) -> Weights:
    """What `advance` reads: the weights without those of the input and recurrent products."""
    return weights._replace(w_x=None, w_h=None, b=None)


def advance(
    update: Update, weights: Weights, carry: Any, z: Array, u: Array, valid: Any = None
) -> Any:
    """`update` and the projection, in the carry's own dtypes, where `valid` holds."""
    new = update(weights.theta, carry, z, u)
    if weights.projection is not None:
        new = new._replace(h=project(new.h, weights.projection))
    return select(valid, cast(new, carry), carry)


def cast(tree: Any, like: Any) -> Any:
    """`tree` in the dtypes of `like`."""
    return jax.tree.map(lambda a, b: a.astype(b.dtype), tree, like)


def emit(carry: Any, keep: bool) -> Any:
    """What a sweep stacks over time: the whole carry, or its h alone."""
    return carry if keep else carry.h


def on_one_device() -> bool:
    """Whether a program that is traced now is of one device: XLA won't split it over several."""
    mesh = jax.sharding.get_abstract_mesh()
    by_hand = not mesh.empty and set(mesh.manual_axes) == set(mesh.axis_names)
    return by_hand or jax.device_count() == 1


def with_derivative(function: Callable, of: Callable) -> Callable:
    """`function`, with the derivative of another that gives the same."""
    same = jax.custom_jvp(function)
    same.defjvp(lambda primals, tangents: (same(*primals), jax.jvp(of, primals, tangents)[1]))
    return same
