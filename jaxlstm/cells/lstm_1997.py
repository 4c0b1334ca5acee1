"""The first long short-term memory: no forget gate, and states that only add up."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check_floating, check_size
from jaxlstm.gated import GatedUnroll, Weights, gated_step, state_dtypes
from jaxlstm.gates import activate, named, sigmoid
from jaxlstm.initializers import gate_weights


class LSTM1997Params(NamedTuple):
    w_x: Array  # (D, 3, H)  gates i, g, o
    w_h: Array  # (H, 3, H)
    b: Array  # (3, H)


class LSTM1997Carry(NamedTuple):
    c: Array  # (*B, H)  cell state, the paper's s; float32 where h is of half precision
    h: Array  # (*B, H)  the cells' output, the paper's y


def init_lstm_1997(
    key: Array,
    features: int,
    hidden: int,
    *,
    output_bias: float = 0.0,
    dtype: Any = jnp.float32,
) -> LSTM1997Params:
    """Draws the params: Glorot, orthogonal gate by gate, and zero biases but the output gate's.

    The paper draws all weights from U(-0.1, 0.1) or U(-0.2, 0.2), and begins with output gates
    that are nearly shut.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the number of memory cells.
      output_bias: initial value of the output gates' bias.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer.

    Example:
      >>> import jax
      >>> from jaxlstm import init_lstm_1997
      >>> init_lstm_1997(jax.random.key(0), features=3, hidden=4).w_x.shape
      (3, 3, 4)
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    w_x, w_h = gate_weights(key, features, hidden, (3,), dtype)
    return LSTM1997Params(w_x, w_h, jnp.zeros((3, hidden), dtype).at[2].set(output_bias))


def lstm_1997_update(theta: tuple, carry: LSTM1997Carry, z: Array, u: Array) -> LSTM1997Carry:
    """The elementwise part of `lstm_1997_step`, of z = x W + b and u = h U, both (*B, 3, H)."""
    i, half, o = activate(z + u, sigmoid, sigmoid, sigmoid)
    i, g, o = named(i=i, g=4 * half - 2, o=o)
    c = carry.c + i * g
    return LSTM1997Carry(c, o * (2 * sigmoid(c) - 1))


def lstm_1997_step(
    params: LSTM1997Params, carry: LSTM1997Carry, x: Array
) -> tuple[LSTM1997Carry, Array]:
    """One step of the long short-term memory of 1997.

        i = σ(x W_i + h U_i + b_i)
        g = 4 σ(x W_g + h U_g + b_g) - 2         in [-2, 2]
        o = σ(x W_o + h U_o + b_o)
        c' = c + i ⊙ g
        h' = o ⊙ (2 σ(c') - 1)                   the second factor in [-1, 1]

    Memory cell blocks of one cell each: every cell has gates of its own. The gradient is whole;
    the paper cuts it where it would leave a memory cell through its inputs.

    Args:
      params: the weights.
      carry: the states before, c and h (*B, H).
      x: (*B, D) floating point.

    Returns:
      The states after, in the dtypes of those before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import LSTM1997Carry, init_lstm_1997, lstm_1997_step
      >>> params = init_lstm_1997(jax.random.key(0), features=3, hidden=4)
      >>> carry = LSTM1997Carry(c=jnp.zeros(4), h=jnp.zeros(4))
      >>> lstm_1997_step(params, carry, jnp.ones(3))[1].shape
      (4,)

    References:
      Hochreiter and Schmidhuber 1997, Long short-term memory, Neural Computation 9(8),
      section 4 and appendix A.1 (eq. 3 to 5 for the three functions).
    """
    return gated_step(lstm_1997_update, _split(params), carry, x)


def _split(params: LSTM1997Params) -> Weights:
    return Weights(params.w_x, params.w_h, params.b)


_unroll = GatedUnroll(lstm_1997_update, _split)


@cell
def lstm_1997(hidden: int) -> Parts:
    """The long short-term memory of 1997: `lstm_1997_step` as a `Cell`.

    Args:
      hidden: H, the number of memory cells.

    Returns:
      A Cell with params `LSTM1997Params`, carry `LSTM1997Carry` and output h (*B, H). Params are
      in the dtype of the x that `init` is given; with half precision c is float32.

    Raises:
      ValueError: if `hidden` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.lstm_1997(64), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `lstm_1997_step`.
    """
    check_size(hidden, "hidden")

    def init(key, x):
        check_floating(x, "x")
        return init_lstm_1997(key, x.shape[-1], hidden, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, wide = state_dtypes(params, x)
        shape = (*x.shape[:-1], hidden)
        return LSTM1997Carry(jnp.zeros(shape, wide), jnp.zeros(shape, dtype))

    return init, initial_carry, lstm_1997_step, _unroll
