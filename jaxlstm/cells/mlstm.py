"""mLSTM: a matrix memory with exponential gates, by steps, by chunks of them or all at once."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxlstm.base import Array, Parts, cell, restart, select, symbolic_steps
from jaxlstm.checks import check, check_features, check_floating, check_shape, check_size
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import named, sigmoid
from jaxlstm.kernels.recurrence import cast, project

CHUNK = 64  # steps, at most, that the chunkwise form takes at once


class MLSTMParams(NamedTuple):
    w_qk: Array  # (D, 2, K, N)  queries and keys of each of K heads
    w_vo: Array  # (D, 2, K, H/K)  values and output gates
    w_if: Array  # (D, 2, K)  input and forget gates, one number a head
    b_qk: Array  # (2, K, N)
    b_vo: Array  # (2, K, H/K)
    b_if: Array  # (2, K)


class MLSTMCarry(NamedTuple):
    c: Array  # (*B, K, N, H/K)  memory times exp(-m); float32 where x is of half precision
    n: Array  # (*B, K, N)  normaliser times exp(-m); as c
    m: Array  # (*B, K)  stabiliser; as c


_LOG = {"sigmoid": jax.nn.log_sigmoid, "exp": lambda f: f}  # log f of what goes into the gate


def init_mlstm(
    key: Array,
    features: int,
    hidden: int,
    *,
    heads: int = 1,
    key_size: int | None = None,
    forget_bias: tuple[float, float] = (3.0, 6.0),
    dtype: Any = jnp.float32,
) -> MLSTMParams:
    """Draws the params of an mLSTM: Glorot weights, zero biases but f's.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the output, of all heads together.
      heads: K.
      key_size: N, the size of a head's queries and keys; None for H/K.
      forget_bias: initial value of the first head's and the last's, the others' evenly
        between; 3 and 6 are the authors' code's. 0 for an exponential gate.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer, or K does not divide H.

    Example:
      >>> import jax
      >>> from jaxlstm import init_mlstm
      >>> init_mlstm(jax.random.key(0), features=3, hidden=8, heads=2).w_qk.shape
      (3, 2, 2, 4)
    """
    check_size(features, "features")
    sizes = _check_sizes(hidden, heads, key_size), hidden // heads, 1
    glorot = jax.nn.initializers.glorot_uniform(0, (2, 3), 1)
    wide = jnp.promote_types(dtype, jnp.float32)  # drawn so, and then rounded
    draw = lambda key, size: glorot(key, (features, 2, heads, size), wide).astype(dtype)
    w_qk, w_vo, w_if = map(draw, jax.random.split(key, 3), sizes)
    b_qk, b_vo, b_if = (jnp.zeros(w.shape[1:], dtype) for w in (w_qk, w_vo, w_if[..., 0]))
    b_if = b_if.at[1].set(jnp.linspace(*forget_bias, heads, dtype=dtype))
    return MLSTMParams(w_qk, w_vo, w_if[..., 0], b_qk, b_vo, b_if)


def _check_sizes(hidden, heads, key_size):
    check_size(hidden, "hidden")
    check_size(heads, "heads")
    check(hidden % heads == 0, "heads", f"a divisor of hidden, which is {hidden}", heads)
    key_size = hidden // heads if key_size is None else key_size
    check_size(key_size, "key_size")
    return key_size


def _check(params, carry, x, argument):
    check_features(x, params.w_qk.shape[0], argument, "params.w_qk")
    shape = (*x.shape[argument == "xs" : -1], *params.b_qk.shape[1:], params.b_vo.shape[-1])
    check_shape(carry.c, shape, "carry.c", f"as {argument} and params have it")


def _inputs(params, x, forget):
    """q, k, v, o (..., K, _), i~ and log f (..., K) of x (..., D)."""
    qk, vo = project(x, params.w_qk), project(x, params.w_vo) + params.b_vo
    i, f = jnp.moveaxis(project(x, params.w_if) + params.b_if, -2, 0)
    q = qk[..., 0, :, :] + params.b_qk[0]
    k = qk[..., 1, :, :] / math.sqrt(qk.shape[-1]) + params.b_qk[1]
    v, o = vo[..., 0, :, :], vo[..., 1, :, :]
    return q, k, v, *named(o=sigmoid(o), log_i=i, log_f=_LOG[forget](f))


def _read(c_q, n_q, m, o):
    """h of Cᵀq (..., H/K), nᵀq and m (...)."""
    # exp(-m) neither overflows nor, where nᵀq is zero too, underflows to a 0/0; the fourth
    # root leaves room for the powers of the denominator in first and second derivatives.
    low = math.log(jnp.finfo(m.dtype).tiny)
    least = jnp.exp(jnp.clip(-m, low / 4, -0.9 * low))
    return o * c_q / jnp.maximum(jnp.abs(n_q), least)[..., None]


def mlstm_step(
    params: MLSTMParams, carry: MLSTMCarry, x: Array, *, forget: str = "sigmoid"
) -> tuple[MLSTMCarry, Array]:
    """One step of an mLSTM; in each head

        q = x W_q + b_q,   k = x W_k / √N + b_k,   v = x W_v + b_v,   o = σ(x W_o + b_o)
        i = exp(i~),   f = σ(f~) or exp(f~),   i~, f~ = x W_if + b_if
        C' = f C + i k vᵀ
        n' = f n + i k
        h = o ⊙ C'ᵀ q / max(|n'ᵀ q|, 1)

    The paper's C is the transpose. What the carry holds are C, n times exp(-m), so that no
    exponential overflows:

        m' = max(log f + m, i~)
        C' = exp(log f + m - m') C + exp(i~ - m') k vᵀ,   and n' alike
        h = o ⊙ C'ᵀ q / max(|n'ᵀ q|, exp(-m'))

    h is the same for every m. Before the first step C, n and m are zero. (The authors' code
    has gates of q, k and v, scales b_k too, and adds 1e-6 to the denominator.)

    Args:
      params: the weights.
      carry: the states before, c (*B, K, N, H/K), n (*B, K, N) and m (*B, K).
      x: (*B, D) floating point.
      forget: f, `"sigmoid"` or `"exp"`; the paper has both, the authors' code the sigmoid.

    Returns:
      The states after, in the dtypes of those before, and h (*B, H), head after head.

    Raises:
      ValueError: if x or the carry does not fit the params, or there is no such gate.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import MLSTMCarry, init_mlstm, mlstm_step
      >>> params = init_mlstm(jax.random.key(0), features=3, hidden=4, heads=2)
      >>> carry = MLSTMCarry(jnp.zeros((2, 2, 2)), jnp.zeros((2, 2)), jnp.zeros(2))
      >>> carry, h = mlstm_step(params, carry, jnp.ones(3))
      >>> h.shape
      (4,)

    References:
      Beck et al. 2024, xLSTM: extended long short-term memory, arXiv:2405.04517, section 2.3.
    """
    check(forget in _LOG, "forget", f"one of {list(_LOG)}", repr(forget))
    _check(params, carry, x, "x")
    q, k, v, o, i, f = _inputs(params, x, forget)
    m = jnp.maximum(f + carry.m, i)
    kept, new = jnp.exp(f + carry.m - m)[..., None], jnp.exp(i - m)[..., None] * k
    c = kept[..., None] * carry.c + new[..., None] * v[..., None, :]
    n = kept * carry.n + new
    h = _read((q[..., None, :] @ c)[..., 0, :], (q * n).sum(-1), m, o)
    y = h.reshape(*x.shape[:-1], h.shape[-2] * h.shape[-1]).astype(state_dtypes(params, x)[0])
    return cast(MLSTMCarry(c, n, m), carry), y


def parallel(params, carry, xs, valid, resets, initial, forget):
    """All steps at once, at a cost quadratic in their number L: `jaxlstm.base.Unroll`.

    Step t sees an earlier step s by a weight exp(log f_{s+1} + ... + log f_t + i~_s), and the
    carry, or since a reset `initial`, by its decay. A step that is not valid has f = 1, i = 0.
    """
    batch = xs.shape[1:-1]
    axes = lambda a: jnp.moveaxis(a, 0, len(batch) + 1)  # (L, *B, K, ...) to (*B, K, L, ...)
    flags = lambda a: axes(jnp.expand_dims(a, tuple(range(a.ndim, len(batch) + 2))))
    q, k, v, o, i, f = map(axes, _inputs(params, xs, forget))
    if valid is not None:
        i, f = jnp.where(flags(valid), i, -jnp.inf), jnp.where(flags(valid), f, 0)
    step = jnp.arange(len(xs))
    seen = step[:, None] >= step  # (t, s)
    # Summed pair by pair: a difference of two cumulative sums loses the small in the large.
    decay = jnp.cumsum(jnp.where(step[:, None] > step, f[..., None], 0), -2)
    # A carry that the first step resets reaches nothing, not even if it is NaN.
    old = restart(None if resets is None else resets[0], initial, carry)
    read = lambda c: (q @ c.c, (q @ c.n[..., None])[..., 0], c.m[..., None])
    c_q, n_q, m = read(old)
    start = m + jnp.cumsum(f, -1)
    if resets is not None:
        begun = lax.cummax(jnp.where(flags(resets), step, -1), len(batch) + 1)  # the last reset
        seen = seen & (begun[..., None] <= step)
        since = jnp.where(begun[..., None] == step, decay + f[..., None, :], 0).sum(-1)
        c_i, n_i, m = read(initial)
        c_q, n_q, start = select(begun >= 0, (c_i, n_i, m + since), (c_q, n_q, start))
        old = select(begun[..., 0, -1] >= 0, initial, old)
    weights = jnp.where(seen, decay + i[..., None, :], -jnp.inf)
    m = jnp.maximum(weights.max(-1), start)
    still = lax.stop_gradient(m)  # h is the same for every m
    kept, a = jnp.exp(start - still), jnp.exp(weights - still[..., None]) * (q @ k.mT)
    h = _read(kept[..., None] * c_q + a @ v, kept * n_q + a.sum(-1), still, o)
    m = m[..., -1]
    kept = jnp.exp(start[..., -1] - m)[..., None]
    new = jnp.exp(weights[..., -1, :] - m[..., None])[..., None] * k
    last = MLSTMCarry(kept[..., None] * old.c + new.mT @ v, kept * old.n + new.sum(-2), m)
    ys = jnp.moveaxis(h, -2, 0).reshape(*xs.shape[:-1], h.shape[-3] * h.shape[-1])
    return cast(last, carry), ys.astype(state_dtypes(params, xs)[0])


def chunkwise(params, carry, xs, valid, resets, initial, forget, chunk=CHUNK):
    """`parallel` on one chunk of steps after another, at a cost linear in their number."""
    time, count = len(xs), -(-len(xs) // chunk)
    size = -(-time // count)
    if count * size > time and valid is None:
        valid = jnp.ones(time, bool)

    def split(a):
        a = jnp.pad(a, [(0, count * size - time), *[(0, 0)] * (a.ndim - 1)])
        return a.reshape(count, size, *a.shape[1:])

    run = lambda carry, s: parallel(params, carry, *s, initial, forget)
    carry, ys = lax.scan(run, carry, jax.tree.map(split, (xs, valid, resets)))
    return carry, ys.reshape(count * size, *ys.shape[2:])[:time]


FORMS = {"chunkwise": chunkwise, "parallel": parallel}  # the first is chosen


class MLSTMUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` of an mLSTM."""

    forget: str

    def __call__(self, params, carry, xs, *, valid, resets, initial, implementation):
        _check(params, carry, xs, "xs")
        name = next(iter(FORMS)) if implementation is None else implementation
        known = ", ".join(map(repr, ["reference", *FORMS]))
        check(name in FORMS, "implementation", f"one of {known}", repr(name))
        if symbolic_steps(xs, implementation):
            return None
        return FORMS[name](params, carry, xs, valid, resets, initial, self.forget)

    def explain(self, params, xs):
        return dict.fromkeys(FORMS, symbolic_steps(xs))


@cell
def mlstm(
    hidden: int, *, heads: int = 1, key_size: int | None = None, forget: str = "sigmoid"
) -> Parts:
    """An LSTM with a matrix memory: `mlstm_step` as a `Cell`.

    h is no part of the carry and no gate sees it, so that a sequence need not run step by step:
    `"chunkwise"` takes some steps at once, `"parallel"` all; a NaN shows at others of its chunk.

    Args:
      hidden: H, the size of the output, of all heads together.
      heads: K.
      key_size: N, the size of a head's queries and keys; None for H/K.
      forget: the forget gate, `"sigmoid"` or `"exp"`.

    Returns:
      A Cell with params `MLSTMParams`, carry `MLSTMCarry` and output h (*B, H). Params are in
      the dtype of the x that `init` is given; with half precision the carry is float32, as is
      all arithmetic after the projections of x.

    Raises:
      ValueError: if a size is not a positive integer, K does not divide H, or there is no
        such gate.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.mlstm(64, heads=4), jnp.ones((10, 3))
      >>> carry, ys = jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)
      >>> ys.shape, carry.c.shape
      ((10, 64), (4, 16, 16))

    References:
      See `mlstm_step`.
    """
    n = _check_sizes(hidden, heads, key_size)
    check(forget in _LOG, "forget", f"one of {list(_LOG)}", repr(forget))
    bias = (3.0, 6.0) if forget == "sigmoid" else (0.0, 0.0)
    options = {"heads": heads, "key_size": key_size, "forget_bias": bias}

    def init(key, x):
        check_floating(x, "x")
        return init_mlstm(key, x.shape[-1], hidden, dtype=x.dtype, **options)

    def initial_carry(params, x, key=None):
        zeros = lambda *s: jnp.zeros((*x.shape[:-1], heads, *s), state_dtypes(params, x)[1])
        return MLSTMCarry(zeros(n, hidden // heads), zeros(n), zeros())

    return init, initial_carry, partial(mlstm_step, forget=forget), MLSTMUnroll(forget)
