"""The simple recurrent unit: gates that see the cell state through vectors alone."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check_features, check_floating, check_shape, check_size
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import activate, gates, named, sigmoid
from jaxlstm.hoisted import HoistedUnroll
from jaxlstm.kernels.recurrence import project


class SRUParams(NamedTuple):
    w_x: Array  # (D, 3, H)  f, g, r; g is the candidate
    v: Array  # (2, H)  f, r
    b: Array  # (2, H)  f, r
    w_skip: Array | None  # (D, H)  of the highway's x; None where D = H


class SRUCarry(NamedTuple):
    c: Array  # (*B, H)  cell state; float32 where x is of half precision


def init_sru(key: Array, features: int, hidden: int, *, dtype: Any = jnp.float32) -> SRUParams:
    """Draws the params of an SRU: weights from U(-√(3/D), √(3/D)), v from U(-1, 1), no bias.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the state.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer.

    Example:
      >>> import jax
      >>> from jaxlstm import init_sru
      >>> init_sru(jax.random.key(0), features=3, hidden=4).w_skip.shape
      (3, 4)

    References:
      Lei et al. 2018, arXiv:1709.02755, section 3.2 for the variance 1/D.
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    keys = jax.random.split(key, 3)
    bound = (3 / features) ** 0.5
    draw = lambda key, bound, *shape: jax.random.uniform(key, shape, dtype, -bound, bound)
    return SRUParams(
        draw(keys[0], bound, features, 3, hidden),
        draw(keys[1], 1, 2, hidden),
        jnp.zeros((2, hidden), dtype),
        None if features == hidden else draw(keys[2], bound, features, hidden),
    )


def sru_step(
    params: SRUParams, carry: SRUCarry, x: Array, *, scale: float = 3**0.5
) -> tuple[SRUCarry, Array]:
    """One step of a simple recurrent unit.

        f = σ(x W_f + v_f ⊙ c + b_f)
        c' = f ⊙ c + (1 - f) ⊙ x W_g
        r = σ(x W_r + v_r ⊙ c + b_r)
        y = r ⊙ c' + (1 - r) ⊙ α x

    Both gates see the cell state before. Where D is not H, x W_skip stands for the last x.

    Args:
      params: the weights.
      carry: the state before, c (*B, H).
      x: (*B, D) floating point.
      scale: α of the highway, √(1 + 2 exp(b_r)) in the paper, at which the variance of y is
        that of x at first; √3 for a bias of zero.

    Returns:
      The state after, in the dtype of the one before, and y (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import SRUCarry, init_sru, sru_step
      >>> params = init_sru(jax.random.key(0), features=3, hidden=4)
      >>> carry, y = sru_step(params, SRUCarry(jnp.zeros(4)), jnp.ones(3))
      >>> y.shape
      (4,)

    References:
      Lei, Zhang, Wang, Dai and Artzi 2018, Simple recurrent units for highly parallelizable
      recurrence, arXiv:1709.02755, eq. 1 to 4 and section 3.2.
    """
    return _unroll(scale).step(params, carry, x)


def _inputs(scale, params, x):
    check_features(x, params.w_x.shape[0], "x", "params.w_x")
    skip = x if params.w_skip is None else project(x, params.w_skip)
    return project(x, params.w_x), (scale * skip).astype(state_dtypes(params, x)[0])


def _recur(params, carry, inputs):
    (c,), (z, skip) = carry, inputs
    check_shape(c, skip.shape, "carry.c", "as x and params.w_x have it")
    a_f, g, a_r = gates(z)
    before = [a + v * c + b for a, v, b in zip((a_f, a_r), params.v, params.b, strict=True)]
    f, r = activate(jnp.stack(before, -2), sigmoid, sigmoid)
    f, g, r = named(f=f, g=g, r=r)
    new = f * c + (1 - f) * g
    y = r * new + (1 - r) * skip
    return SRUCarry(new.astype(c.dtype)), y.astype(skip.dtype)


def _unroll(scale):
    return HoistedUnroll(partial(_inputs, scale), _recur)


@cell
def sru(hidden: int, *, scale: float = 3**0.5) -> Parts:
    """A simple recurrent unit: `sru_step` as a `Cell`.

    Args:
      hidden: H, the size of the state.
      scale: α, of the input on its highway to the output.

    Returns:
      A Cell with params `SRUParams`, carry `SRUCarry` and output y (*B, H). Params are in the
      dtype of the x that `init` is given; with half precision c is float32.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.sru(64), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `sru_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        check_floating(x, "x")
        return init_sru(key, x.shape[-1], hidden, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        _, wide = state_dtypes(params, x)
        return SRUCarry(jnp.zeros((*x.shape[:-1], hidden), wide))

    return init, initial_carry, partial(sru_step, scale=scale), _unroll(scale)
