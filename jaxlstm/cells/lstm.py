"""Long short-term memory, with the options that add up: peepholes, projection, norm, clipping."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check, check_floating, check_size
from jaxlstm.gated import GatedUnroll, Weights, gated_step, state_dtypes
from jaxlstm.gates import activate, gates, named, normalised, sigmoid, tanh
from jaxlstm.initializers import gate_weights
from jaxlstm.kernels.recurrence import Known


class LSTMNorm(NamedTuple):
    x: Array  # (4, H)  gain of the normalised x W
    h: Array  # (4, H)  gain of the normalised h U
    c: Array  # (H,)  gain of the normalised cell state
    b_c: Array  # (H,)  its bias


class LSTMParams(NamedTuple):
    w_x: Array  # (D, 4, H)  gates i, f, g, o
    w_h: Array  # (R, 4, H)  R is the size of h: of the projection, or H
    b: Array  # (4, H)
    peephole: Array | None = None  # (3, H)  i, f, o
    projection: Array | None = None  # (H, R)
    norm: LSTMNorm | None = None


class LSTMTheta(NamedTuple):
    """What `lstm_update` needs of the params."""

    peephole: Array | None  # (3, H)  i, f, o
    norm: tuple[LSTMNorm, Array] | None  # and b (4, H), which comes after it


class LSTMCarry(NamedTuple):
    c: Array  # (*B, H)  cell state; float32 where h is of half precision
    h: Array  # (*B, R)  hidden state


def init_lstm(
    key: Array,
    features: int,
    hidden: int,
    *,
    peephole: bool = False,
    projection: int | None = None,
    layer_norm: bool = False,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> LSTMParams:
    """Draws the params of an LSTM.

    Glorot input weights, orthogonal recurrent weights gate by gate, zero biases but the
    forget gate's (Gers et al. 2000; Jozefowicz et al. 2015 for the value 1), peepholes of
    zero, at which the cell is the plain LSTM, a Glorot projection, and gains of one.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the states.
      peephole: whether to have peephole weights.
      projection: R, the size of a projected h; None for no projection.
      layer_norm: whether to have the gains of layer normalisation.
      forget_bias: initial value of the forget gate's bias.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer.

    Example:
      >>> import jax
      >>> from jaxlstm import init_lstm
      >>> params = init_lstm(jax.random.key(0), features=3, hidden=4, peephole=True)
      >>> params.w_x.shape, params.b[1].tolist()
      ((3, 4, 4), [1.0, 1.0, 1.0, 1.0])
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    if projection is not None:
        check_size(projection, "projection")
    of_gates, of_projection = jax.random.split(key)
    w_x, w_h = gate_weights(of_gates, features, hidden, (4,), dtype, projection)
    b = jnp.zeros((4, hidden), dtype).at[1].set(forget_bias)
    ones = lambda *shape: jnp.ones((*shape, hidden), dtype)
    glorot = jax.nn.initializers.glorot_uniform()
    return LSTMParams(
        w_x,
        w_h,
        b,
        jnp.zeros((3, hidden), dtype) if peephole else None,
        None if projection is None else glorot(of_projection, (hidden, projection), dtype),
        LSTMNorm(ones(4), ones(4), ones(), 0 * ones()) if layer_norm else None,
    )


def lstm_update(
    theta: LSTMTheta,
    carry: LSTMCarry,
    z: Array,
    u: Array,
    *,
    cell_clip: float | None = None,
    gate_clip: float | None = None,
    candidate: Array | None = None,
) -> LSTMCarry:
    """The elementwise part of `lstm_step`, of z = x W + b and u = h U, both (*B, 4, H).

    With layer normalisation z is x W alone. `candidate` (*B, H) multiplies g, for
    `recurrent_dropout`. The h that this gives has not been projected yet.
    """
    c, a = carry.c, z + u
    if theta.norm is not None:
        norm, b = theta.norm
        a = normalised(z, (-2, -1)) * norm.x + normalised(u, (-2, -1)) * norm.h + b
    clip = lambda a, bound: a if bound is None else jnp.clip(a, -bound, bound)
    drop = lambda g: g if candidate is None else g * candidate
    if theta.peephole is None:
        i, f, g, o = activate(clip(a, gate_clip), sigmoid, sigmoid, tanh, sigmoid)
        i, f, g, o = named(i=i, f=f, g=g, o=o)
        c = clip(f * c + i * drop(g), cell_clip)
    else:
        p_i, p_f, p_o = theta.peephole
        a_i, a_f, a_g, a_o = gates(a)
        before = jnp.stack([a_i + p_i * c, a_f + p_f * c, a_g], -2)
        i, f, g = activate(clip(before, gate_clip), sigmoid, sigmoid, tanh)
        i, f, g = named(i=i, f=f, g=g)
        c = clip(f * c + i * drop(g), cell_clip)
        (o,) = named(o=sigmoid(clip(a_o + p_o * c, gate_clip)))
    shown = c if theta.norm is None else normalised(c, -1) * norm.c + norm.b_c
    return LSTMCarry(c, o * tanh(shown))


def lstm_step(
    params: LSTMParams,
    carry: LSTMCarry,
    x: Array,
    *,
    cell_clip: float | None = None,
    gate_clip: float | None = None,
) -> tuple[LSTMCarry, Array]:
    """One step of a long short-term memory.

        i = σ(x W_i + h U_i + b_i + p_i ⊙ c)
        f = σ(x W_f + h U_f + b_f + p_f ⊙ c)
        g = tanh(x W_g + h U_g + b_g)
        c' = f ⊙ c + i ⊙ g
        o = σ(x W_o + h U_o + b_o + p_o ⊙ c')
        h' = (o ⊙ tanh(c')) P

    One bias, where PyTorch and cuDNN add two; no hidden 1 on the forget gate, where Haiku
    has one; the output gate sees the new cell state, as in the paper and in ONNX. Peepholes p
    and the projection P are left out where they are None, and so is layer normalisation:

        LN(x W; γ_x) + LN(h U; γ_h) + b   for x W + h U + b, over all four gates together
        tanh(LN(c'; γ_c, β_c))            for tanh(c'), γ and β being `params.norm`

    as in Haste; the variance has 1e-5 added.

    Args:
      params: the weights.
      carry: the states before, c (*B, H) and h (*B, R).
      x: (*B, D) floating point.
      cell_clip: bounds c' to [-cell_clip, cell_clip], as in Sak et al.; None for no bound.
      gate_clip: bounds what goes into the gates and g, peepholes included, as ONNX's `clip`.

    Returns:
      The states after, in the dtypes of those before, and h' (*B, R).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import LSTMCarry, init_lstm, lstm_step
      >>> params = init_lstm(jax.random.key(0), features=3, hidden=4)
      >>> carry = LSTMCarry(c=jnp.zeros(4), h=jnp.zeros(4))
      >>> carry, hs = jax.lax.scan(lambda c, x: lstm_step(params, c, x), carry, jnp.ones((7, 3)))
      >>> hs.shape
      (7, 4)

    References:
      Hochreiter and Schmidhuber 1997, Long short-term memory, Neural Computation 9(8); Gers,
      Schmidhuber and Cummins 2000 for the forget gate; Gers, Schraudolph and Schmidhuber
      2002, JMLR 3, for the peepholes; Sak, Senior and Beaufays 2014, arXiv:1402.1128, eq. 1
      to 7, for the projection; Ba, Kiros and Hinton 2016, arXiv:1607.06450, eq. 20 to 22, for
      layer normalisation.
    """
    return gated_step(_update(cell_clip, gate_clip), _split(params), carry, x)


def _update(cell_clip, gate_clip):
    if cell_clip is None and gate_clip is None:
        return Known(lstm_update, "lstm")
    return partial(lstm_update, cell_clip=cell_clip, gate_clip=gate_clip)


def _split(params: LSTMParams) -> Weights:
    w_x, w_h, b, peephole, projection, norm = params
    if norm is None:
        return Weights(w_x, w_h, b, LSTMTheta(peephole, None), projection)
    return Weights(w_x, w_h, jnp.zeros_like(b), LSTMTheta(peephole, (norm, b)), projection)


@cell
def lstm(
    hidden: int,
    *,
    peephole: bool = False,
    projection: int | None = None,
    layer_norm: bool = False,
    cell_clip: float | None = None,
    gate_clip: float | None = None,
) -> Parts:
    """A long short-term memory: `lstm_step` as a `Cell`.

    Args:
      hidden: H, the size of the states.
      peephole: whether the gates see the cell state.
      projection: R, the size that h is projected to; None for none, R = H.
      layer_norm: whether to normalise what goes into the gates, and the cell state shown.
      cell_clip: the largest absolute value of a cell state; None for any.
      gate_clip: the largest absolute value of what goes into a gate; None for any.

    Returns:
      A Cell with params `LSTMParams`, carry `LSTMCarry` and output h (*B, R). Params are in
      the dtype of the x that `init` is given; with half precision c is float32, as is the
      gates' arithmetic.

    Raises:
      ValueError: if a size is not a positive integer, or a bound not a positive number.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.lstm(64, peephole=True, projection=16), jnp.ones((10, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> carry, ys = jl.scan(cell, params, xs)
      >>> ys.shape, carry.c.shape, params.peephole.shape
      ((10, 16), (64,), (3, 64))

    References:
      See `lstm_step`.
    """
    check_size(hidden, "hidden")
    if projection is not None:
        check_size(projection, "projection")
    for name, bound in (("cell_clip", cell_clip), ("gate_clip", gate_clip)):
        check(bound is None or bound > 0, name, "a positive number or None", repr(bound))

    def init(key, x):
        check_floating(x, "x")
        return init_lstm(
            key,
            x.shape[-1],
            hidden,
            peephole=peephole,
            projection=projection,
            layer_norm=layer_norm,
            dtype=x.dtype,
        )

    def initial_carry(params, x, key=None):
        dtype, wide = state_dtypes(params, x)
        zeros = lambda size, dtype: jnp.zeros((*x.shape[:-1], size), dtype)
        return LSTMCarry(zeros(hidden, wide), zeros(projection or hidden, dtype))

    step = partial(lstm_step, cell_clip=cell_clip, gate_clip=gate_clip)
    return init, initial_carry, step, GatedUnroll(_update(cell_clip, gate_clip), _split)
