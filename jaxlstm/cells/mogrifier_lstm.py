"""Mogrifier LSTM: input and state gate each other before an LSTM's step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check, check_features, check_floating, check_shape, check_size
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import activate, named, sigmoid, tanh
from jaxlstm.initializers import gate_weights
from jaxlstm.kernels.recurrence import cast, project


class MogrifierRound(NamedTuple):
    w: Array  # Q (H, D) in the first round, the third, ...; R (D, H) in the others
    up: Array | None = None  # with a rank K, Q or R is w @ up: (H or D, K) times (K, D or H)


class MogrifierLSTMParams(NamedTuple):
    w_x: Array  # (D, 4, H)  gates i, f, g, o
    w_h: Array  # (H, 4, H)
    b: Array  # (4, H)
    rounds: tuple[MogrifierRound, ...] = ()


class MogrifierLSTMCarry(NamedTuple):
    c: Array  # (*B, H)  cell state; float32 where h is of half precision
    h: Array  # (*B, H)  hidden state


def init_mogrifier_lstm(
    key: Array,
    features: int,
    hidden: int,
    *,
    rounds: int = 5,
    rank: int | None = None,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> MogrifierLSTMParams:
    """Draws the params of a Mogrifier LSTM: those of an LSTM, and Glorot matrices for the rounds.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the states.
      rounds: r, how often x or h is gated by the other; 5 is what the paper found best.
      rank: K, for Q and R as products of two factors; None for full matrices.
      forget_bias: initial value of the forget gate's bias.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer, or `rounds` not one in [0, 100].

    Example:
      >>> import jax
      >>> from jaxlstm import init_mogrifier_lstm
      >>> params = init_mogrifier_lstm(jax.random.key(0), features=3, hidden=4, rounds=2)
      >>> [r.w.shape for r in params.rounds]
      [(4, 3), (3, 4)]
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    _check_rounds(rounds, rank)
    of_gates, *keys = jax.random.split(key, 1 + rounds)
    w_x, w_h = gate_weights(of_gates, features, hidden, (4,), dtype)
    b = jnp.zeros((4, hidden), dtype).at[1].set(forget_bias)
    glorot = jax.nn.initializers.glorot_uniform()

    def draw(key, rows, columns):
        if rank is None:
            return MogrifierRound(glorot(key, (rows, columns), dtype))
        down, up = jax.random.split(key)
        return MogrifierRound(glorot(down, (rows, rank), dtype), glorot(up, (rank, columns), dtype))

    shapes = ((hidden, features), (features, hidden))
    drawn = tuple(draw(k, *shapes[n % 2]) for n, k in enumerate(keys))
    return MogrifierLSTMParams(w_x, w_h, b, drawn)


def mogrifier_lstm_step(
    params: MogrifierLSTMParams, carry: MogrifierLSTMCarry, x: Array
) -> tuple[MogrifierLSTMCarry, Array]:
    """One step of a Mogrifier LSTM.

        x ← 2 σ(h Q_n) ⊙ x     in round n = 1, 3, 5, ...
        h ← 2 σ(x R_n) ⊙ h     in round n = 2, 4, ...

    and then, with the last x and h, an LSTM's step:

        i, f, o = σ(x W + h U + b),   g = tanh(x W_g + h U_g + b_g)
        c' = f ⊙ c + i ⊙ g,   h' = o ⊙ tanh(c')

    With no rounds it is the LSTM. (The authors' code adds a bias in each round and bounds i
    by 1 - f; the paper's equations have neither.) The products wait for the rounds, so that a
    sequence runs by `lax.scan` of the step.

    Args:
      params: the weights; the number of rounds is that of `params.rounds`.
      carry: the states before, c and h (*B, H).
      x: (*B, D) floating point.

    Returns:
      The states after, in the dtypes of those before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import MogrifierLSTMCarry, init_mogrifier_lstm, mogrifier_lstm_step
      >>> params = init_mogrifier_lstm(jax.random.key(0), features=3, hidden=4)
      >>> carry = MogrifierLSTMCarry(c=jnp.zeros((2, 4)), h=jnp.zeros((2, 4)))
      >>> carry, h = mogrifier_lstm_step(params, carry, jnp.ones((2, 3)))
      >>> h.shape
      (2, 4)

    References:
      Melis, Kočiský and Blunsom 2020, Mogrifier LSTM, arXiv:1909.01792, section 2, eq. 1 and 2.
    """
    w_x, w_h, b, rounds = params
    check_features(x, w_x.shape[0], "x", "params.w_x")
    expected = (*x.shape[:-1], w_h.shape[0])
    check_shape(carry.c, expected, "carry.c", "as x and params.w_h have it")
    check_shape(carry.h, expected, "carry.h", "as x and params.w_h have it")
    h = carry.h
    for n, matrix in enumerate(rounds):
        if n % 2 == 0:
            x = _gated(x, h, matrix)
        else:
            h = _gated(h, x, matrix)
    a = project(x, w_x) + project(h, w_h) + b
    i, f, g, o = activate(a, sigmoid, sigmoid, tanh, sigmoid)
    i, f, g, o = named(i=i, f=f, g=g, o=o)
    c = f * carry.c + i * g
    carry = cast(MogrifierLSTMCarry(c, o * tanh(c)), carry)
    return carry, carry.h


def _gated(a, by, matrix):
    """2 σ(by W) ⊙ a, and 2 σ(v) = 1 + tanh(v / 2)."""
    product = project(by, matrix.w)
    if matrix.up is not None:
        product = project(product.astype(by.dtype), matrix.up)
    return ((1 + tanh(0.5 * product)) * a).astype(a.dtype)


def _check_rounds(rounds, rank):
    is_integer = isinstance(rounds, int) and not isinstance(rounds, bool)
    # Each is traced by itself: a name in a file must not ask for billions.
    check(is_integer and 0 <= rounds <= 100, "rounds", "an integer in [0, 100]", repr(rounds))
    if rank is not None:
        check_size(rank, "rank")


@cell
def mogrifier_lstm(hidden: int, *, rounds: int = 5, rank: int | None = None) -> Parts:
    """An LSTM whose input and state gate each other first: `mogrifier_lstm_step` as a `Cell`.

    Args:
      hidden: H, the size of the states.
      rounds: r, how often x or h is gated by the other; 0 for an LSTM.
      rank: K, for the rounds' matrices as products of two factors; None for full ones.

    Returns:
      A Cell with params `MogrifierLSTMParams`, carry `MogrifierLSTMCarry` and output h (*B, H).
      Params are in the dtype of the x that `init` is given; with half precision c is float32,
      as is the gates' arithmetic.

    Raises:
      ValueError: if a size is not a positive integer, or `rounds` not one in [0, 100].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.mogrifier_lstm(64, rank=8), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `mogrifier_lstm_step`.
    """
    check_size(hidden, "hidden")
    _check_rounds(rounds, rank)

    def init(key, x):
        check_floating(x, "x")
        return init_mogrifier_lstm(
            key, x.shape[-1], hidden, rounds=rounds, rank=rank, dtype=x.dtype
        )

    def initial_carry(params, x, key=None):
        dtype, wide = state_dtypes(params, x)
        shape = (*x.shape[:-1], hidden)
        return MogrifierLSTMCarry(jnp.zeros(shape, wide), jnp.zeros(shape, dtype))

    return init, initial_carry, mogrifier_lstm_step
