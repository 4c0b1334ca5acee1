"""sLSTM: exponential gates, a normaliser, and heads that keep to themselves."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check, check_features, check_floating, check_shape, check_size
from jaxlstm.gated import GatedUnroll, Weights, state_dtypes
from jaxlstm.gates import gates, named, sigmoid, tanh
from jaxlstm.initializers import gate_weights
from jaxlstm.kernels.recurrence import cast, project


class SLSTMParams(NamedTuple):
    w_x: Array  # (D, 4, H)  gates i, f, g, o; g is the paper's z
    w_h: Array  # (K, H/K, 4, H/K)  of each of K heads
    b: Array  # (4, H)


class SLSTMCarry(NamedTuple):
    c: Array  # (*B, H)  cell state times exp(-m); float32 where h is of half precision
    n: Array  # (*B, H)  normaliser times exp(-m); as c
    m: Array  # (*B, H)  stabiliser; as c
    h: Array  # (*B, H)  hidden state


_LOG = {"sigmoid": jax.nn.log_sigmoid, "exp": lambda f: f}  # log f of what goes into the gate


def init_slstm(
    key: Array,
    features: int,
    hidden: int,
    *,
    heads: int = 1,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> SLSTMParams:
    """Draws the params of an sLSTM, each head as an LSTM of its own.

    Glorot input weights, orthogonal recurrent weights gate by gate, zero biases but f's.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the states, of all heads together.
      heads: K.
      forget_bias: initial value of the forget gate's bias; for an exponential gate 0, at
        which it forgets nothing and amplifies nothing.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer, or K does not divide H.

    Example:
      >>> import jax
      >>> from jaxlstm import init_slstm
      >>> init_slstm(jax.random.key(0), features=3, hidden=8, heads=2).w_h.shape
      (2, 4, 4, 4)
    """
    check_size(features, "features")
    _check_sizes(hidden, heads)
    keys = jax.random.split(key, heads)
    drawn = [gate_weights(k, features, hidden // heads, (4,), dtype) for k in keys]
    w_x, w_h = zip(*drawn, strict=True)
    b = jnp.zeros((4, hidden), dtype).at[1].set(forget_bias)
    return SLSTMParams(jnp.concatenate(w_x, -1), jnp.stack(w_h), b)


def _check_sizes(hidden, heads):
    check_size(hidden, "hidden")
    check_size(heads, "heads")
    check(hidden % heads == 0, "heads", f"a divisor of hidden, which is {hidden}", heads)


def _check_forget(forget):
    check(forget in _LOG, "forget", f"one of {list(_LOG)}", repr(forget))


def slstm_update(
    theta: tuple, carry: SLSTMCarry, z: Array, u: Array, *, forget: str = "sigmoid"
) -> SLSTMCarry:
    """The elementwise part of `slstm_step`, of z = x W + b and u = h R, both (*B, 4, H)."""
    i, f, g, o = gates(z + u)
    i, f = named(log_i=i, log_f=_LOG[forget](f))
    kept = f + carry.m
    m = jnp.where(carry.n <= 0, i, jnp.maximum(kept, i))
    # Above 0 only where nothing is stored, and f times that must not be infinite times zero.
    f, i = jnp.exp(jnp.minimum(kept - m, 60)), jnp.exp(i - m)
    c, n = f * carry.c + i * named(g=tanh(g))[0], f * jnp.where(carry.n < 0, 0, carry.n) + i
    return SLSTMCarry(c, n, m, named(o=sigmoid(o))[0] * c / n)


def slstm_step(
    params: SLSTMParams, carry: SLSTMCarry, x: Array, *, forget: str = "sigmoid"
) -> tuple[SLSTMCarry, Array]:
    """One step of an sLSTM.

        i~, f~, g~, o~ = x W + h R + b
        i = exp(i~),   f = σ(f~) or exp(f~),   g = tanh(g~),   o = σ(o~)
        c' = f ⊙ c + i ⊙ g
        n' = f ⊙ n + i
        h' = o ⊙ c' / n'

    R is block-diagonal, a block a head. g is the paper's z. What the carry holds are c, n
    times exp(-m), so that no exponential overflows:

        m' = max(log f + m, i~),   or i~ where n is zero
        c' = exp(log f + m - m') ⊙ c + exp(i~ - m') ⊙ g,   and n' alike

    h' is the same for every m. Before the first step c, n and m are zero: an n of zero says
    that nothing is stored, and the first output is o ⊙ g whatever i~ is. (The paper leaves
    the first m open; the authors' code looks at n as here, but at all sequences' at once.) No
    n is negative after any step; one that is given counts as zero.

    Args:
      params: the weights.
      carry: the states before, c, n, m and h (*B, H).
      x: (*B, D) floating point.
      forget: f, `"sigmoid"` or `"exp"`; the paper has both, the authors' code the sigmoid.

    Returns:
      The states after, in the dtypes of those before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params, or there is no such gate.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import SLSTMCarry, init_slstm, slstm_step
      >>> params = init_slstm(jax.random.key(0), features=3, hidden=4, heads=2)
      >>> carry = SLSTMCarry(*jnp.zeros((4, 4)))
      >>> carry, h = slstm_step(params, carry, jnp.ones(3))
      >>> h.shape
      (4,)

    References:
      Beck et al. 2024, xLSTM: extended long short-term memory, arXiv:2405.04517, section 2.2.
    """
    _check_forget(forget)
    w_x, w_h, b = params
    check_features(x, w_x.shape[0], "x", "params.w_x")
    check_shape(carry.h, (*x.shape[:-1], b.shape[-1]), "carry.h", "as x and params.b have it")
    z = project(x, w_x) + b
    h = carry.h.reshape(*x.shape[:-1], *w_h.shape[:2])
    u = jnp.einsum("...ka,kagb->...gkb", h, w_h, preferred_element_type=z.dtype)
    carry = cast(slstm_update((), carry, z, u.reshape(z.shape), forget=forget), carry)
    return carry, carry.h


def _split(params: SLSTMParams) -> Weights:
    w_x, w_h, b = params
    heads = len(w_h)
    hidden = b.shape[-1]
    r = jnp.einsum("kagb,kl->kaglb", w_h, jnp.eye(heads, dtype=w_h.dtype))
    return Weights(w_x, r.reshape(hidden, 4, hidden), b)


@cell
def slstm(hidden: int, *, heads: int = 1, forget: str = "sigmoid") -> Parts:
    """An LSTM with exponential gates and a normaliser: `slstm_step` as a `Cell`.

    The fast path multiplies by all of R, zeros between the heads included.

    Args:
      hidden: H, the size of the states, of all heads together.
      heads: K; h mixes within a head only.
      forget: the forget gate, `"sigmoid"` or `"exp"`.

    Returns:
      A Cell with params `SLSTMParams`, carry `SLSTMCarry` and output h (*B, H). Params are in
      the dtype of the x that `init` is given; with half precision c, n and m are float32, as
      is the gates' arithmetic.

    Raises:
      ValueError: if a size is not a positive integer, K does not divide H, or there is no
        such gate.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.slstm(64, heads=4), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `slstm_step`.
    """
    _check_sizes(hidden, heads)
    _check_forget(forget)
    forget_bias = 1.0 if forget == "sigmoid" else 0.0

    def init(key, x):
        check_floating(x, "x")
        options = dict(heads=heads, forget_bias=forget_bias, dtype=x.dtype)
        return init_slstm(key, x.shape[-1], hidden, **options)

    def initial_carry(params, x, key=None):
        dtype, wide = state_dtypes(params, x)
        zeros = lambda dtype: jnp.zeros((*x.shape[:-1], hidden), dtype)
        return SLSTMCarry(zeros(wide), zeros(wide), zeros(wide), zeros(dtype))

    step = partial(slstm_step, forget=forget)
    return init, initial_carry, step, GatedUnroll(partial(slstm_update, forget=forget), _split)
