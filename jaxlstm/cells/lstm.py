"""Long short-term memory, with a forget gate and, optionally, peepholes."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check_floating, check_size
from jaxlstm.gated import GatedUnroll, Weights, gated_step, state_dtypes
from jaxlstm.gates import activate, gates, sigmoid, tanh
from jaxlstm.initializers import gate_weights


class LSTMParams(NamedTuple):
    w_x: Array  # (D, 4, H)  gates i, f, g, o
    w_h: Array  # (H, 4, H)
    b: Array  # (4, H)
    peephole: Array | None = None  # (3, H)  i, f, o


class LSTMCarry(NamedTuple):
    c: Array  # (*B, H)  cell state; float32 where h is of half precision
    h: Array  # (*B, H)  hidden state


def init_lstm(
    key: Array,
    features: int,
    hidden: int,
    *,
    peephole: bool = False,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> LSTMParams:
    """Draws the params of an LSTM.

    Glorot input weights, orthogonal recurrent weights gate by gate, zero biases but the
    forget gate's (Gers et al. 2000; Jozefowicz et al. 2015 for the value 1), and peepholes
    of zero, at which the cell is the plain LSTM.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the states.
      peephole: whether to have peephole weights.
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
    w_x, w_h = gate_weights(key, features, hidden, (4,), dtype)
    b = jnp.zeros((4, hidden), dtype).at[1].set(forget_bias)
    return LSTMParams(w_x, w_h, b, jnp.zeros((3, hidden), dtype) if peephole else None)


def lstm_update(peephole: Array | None, carry: LSTMCarry, z: Array, u: Array) -> LSTMCarry:
    """The elementwise part of `lstm_step`, of z = x W + b and u = h U, both (*B, 4, H)."""
    c = carry.c
    if peephole is None:
        i, f, g, o = activate(z + u, sigmoid, sigmoid, tanh, sigmoid)
        c = f * c + i * g
    else:
        p_i, p_f, p_o = peephole
        a_i, a_f, a_g, a_o = gates(z + u)
        before = jnp.stack([a_i + p_i * c, a_f + p_f * c, a_g], -2)
        i, f, g = activate(before, sigmoid, sigmoid, tanh)
        c = f * c + i * g
        o = sigmoid(a_o + p_o * c)
    return LSTMCarry(c, o * jnp.tanh(c))


def lstm_step(params: LSTMParams, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Array]:
    """One step of a long short-term memory.

        i = σ(x W_i + h U_i + b_i + p_i ⊙ c)
        f = σ(x W_f + h U_f + b_f + p_f ⊙ c)
        g = tanh(x W_g + h U_g + b_g)
        c' = f ⊙ c + i ⊙ g
        o = σ(x W_o + h U_o + b_o + p_o ⊙ c')
        h' = o ⊙ tanh(c')

    One bias, where PyTorch and cuDNN add two; no hidden 1 on the forget gate, where Haiku
    has one; the output gate sees the new cell state, as in the paper and in ONNX.

    Args:
      params: the weights; peepholes p are left out where they are None.
      carry: the states before, c and h (*B, H).
      x: (*B, D) floating point.

    Returns:
      The states after, in the dtypes of those before, and h' (*B, H).

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
      2002, JMLR 3, for the peepholes.
    """
    return gated_step(lstm_update, _split(params), carry, x)


def _split(params: LSTMParams) -> Weights:
    return Weights(params.w_x, params.w_h, params.b, params.peephole)


_unroll = GatedUnroll(lstm_update, _split)


@cell
def lstm(hidden: int, *, peephole: bool = False) -> Parts:
    """A long short-term memory: `lstm_step` as a `Cell`.

    Args:
      hidden: H, the size of the states.
      peephole: whether the gates see the cell state.

    Returns:
      A Cell with params `LSTMParams`, carry `LSTMCarry` and output h (*B, H). Params are in
      the dtype of the x that `init` is given; with half precision c is float32, as is the
      gates' arithmetic.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.lstm(64, peephole=True), jnp.ones((10, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> carry, ys = jl.scan(cell, params, xs)
      >>> ys.shape, params.peephole.shape
      ((10, 64), (3, 64))

    References:
      See `lstm_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        check_floating(x, "x")
        return init_lstm(key, x.shape[-1], hidden, peephole=peephole, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, wide = state_dtypes(params, x)
        shape = (*x.shape[:-1], hidden)
        return LSTMCarry(jnp.zeros(shape, wide), jnp.zeros(shape, dtype))

    return init, initial_carry, lstm_step, _unroll
