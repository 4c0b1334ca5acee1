"""HyperLSTM: an LSTM whose weights a smaller LSTM rescales at each step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check_features, check_floating, check_shape, check_size
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import activate, named, normalised, sigmoid, tanh
from jaxlstm.hoisted import HoistedUnroll
from jaxlstm.initializers import orthogonal
from jaxlstm.kernels.recurrence import cast, project


class HyperLSTMNorm(NamedTuple):
    gain: Array  # (4, H)  of what goes into each gate, normalised gate by gate
    b: Array  # (4, H)  added after the gain
    gain_c: Array  # (H,)  of the normalised cell state
    b_c: Array  # (H,)


class HyperLSTMSmallParams(NamedTuple):
    w_x: Array  # (H + D, 4, N)  of h and x side by side; gates i, f, g, o
    w_h: Array  # (N, 4, N)
    b: Array  # (4, N)
    norm: HyperLSTMNorm | None = None


class HyperLSTMParams(NamedTuple):
    w_x: Array  # (D, 4, H)  gates i, f, g, o
    w_h: Array  # (H, 4, H)
    b: Array  # (4, H)  b_0
    small: HyperLSTMSmallParams
    w_z: Array  # (N, 3, 4, E)  embeddings z_h, z_x, z_b of each gate
    b_z: Array  # (2, 4, E)  of z_h and z_x
    w_d: Array  # (3, 4, E, H)  from them to d_h, d_x and the bias
    norm: HyperLSTMNorm | None = None


class HyperLSTMCarry(NamedTuple):
    c: Array  # (*B, H)  cell state; float32 where h is of half precision
    h: Array  # (*B, H)  hidden state
    small_c: Array  # (*B, N)  those of the smaller LSTM
    small_h: Array  # (*B, N)


def init_hyper_lstm(
    key: Array,
    features: int,
    hidden: int,
    *,
    hyper: int = 128,
    embedding: int = 4,
    layer_norm: bool = False,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> HyperLSTMParams:
    """Draws the params of a HyperLSTM, as the paper's appendix A.2.3 does.

    Orthogonal weights gate by gate for both LSTMs; z_h and z_x begin at 1 whatever the smaller
    LSTM says, and W_hz and W_xz at 0.1 / E, so that all scaling vectors begin at 0.1; z_b has
    normal weights of standard deviation 0.01 and W_bz begins at zero, as do all biases but
    those of the forget gates (which the authors' code adds in the step).

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the states.
      hyper: N, the size of the smaller LSTM's states.
      embedding: E, the size of an embedding z.
      layer_norm: whether both LSTMs are layer normalised.
      forget_bias: initial value of both forget gates' bias, after the normalisation if any.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer.

    Example:
      >>> import jax
      >>> from jaxlstm import init_hyper_lstm
      >>> params = init_hyper_lstm(jax.random.key(0), features=3, hidden=8, hyper=4)
      >>> params.small.w_x.shape, params.w_z.shape, params.w_d.shape
      ((11, 4, 4), (4, 3, 4, 4), (3, 4, 4, 8))
    """
    sizes = {"features": features, "hidden": hidden, "hyper": hyper, "embedding": embedding}
    for name, size in sizes.items():
        check_size(size, name)
    keys = jax.random.split(key, 5)
    wide = jnp.promote_types(dtype, jnp.float32)  # drawn so, and then rounded

    def turn(key, rows, columns):
        one = lambda key: orthogonal(key, max(rows, columns), wide)[:rows, :columns]
        return jnp.moveaxis(jax.vmap(one)(jax.random.split(key, 4)), 0, 1).astype(dtype)

    def rest(size):
        forget = jnp.zeros((4, size), dtype).at[1].set(forget_bias)
        if not layer_norm:
            return forget, None
        ones = jnp.ones((4, size), dtype)
        return jnp.zeros_like(forget), HyperLSTMNorm(ones, forget, ones[0], 0 * ones[0])

    b, norm = rest(hidden)
    small_b, small_norm = rest(hyper)
    of_small = turn(keys[0], hidden + features, hyper), turn(keys[1], hyper, hyper)
    of_bias = 0.01 * jax.random.normal(keys[2], (hyper, 4, embedding), wide)
    return HyperLSTMParams(
        turn(keys[3], features, hidden),
        turn(keys[4], hidden, hidden),
        b,
        HyperLSTMSmallParams(*of_small, small_b, small_norm),
        jnp.zeros((hyper, 3, 4, embedding), dtype).at[:, 2].set(of_bias.astype(dtype)),
        jnp.ones((2, 4, embedding), dtype),
        jnp.full((3, 4, embedding, hidden), 0.1 / embedding, dtype).at[2].set(0),
        norm,
    )


def hyper_lstm_step(
    params: HyperLSTMParams, carry: HyperLSTMCarry, x: Array
) -> tuple[HyperLSTMCarry, Array]:
    """One step of a HyperLSTM, the variant with weight scaling vectors d(z).

    A smaller LSTM reads what the main one does,

        ĉ', ĥ' = LSTM(ĉ, ĥ, [h, x])

    and for each gate y of the main LSTM there are

        z_h = ĥ' W_ĥh + b_ĥh,   z_x = ĥ' W_ĥx + b_ĥx,   z_b = ĥ' W_ĥb
        y = (z_h W_hz) ⊙ (h W_h) + (z_x W_xz) ⊙ (x W_x) + z_b W_bz + b_0
        c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
        h' = σ(o) ⊙ tanh(c')

    With `params.norm` each y is normalised by itself, its gain and bias applied, and so is the
    c' that tanh is taken of; the smaller LSTM likewise by its own. The variance has 1e-5 added
    (1e-3 in the authors' code). `lstm(layer_norm=True)` normalises otherwise: x W and h U
    apart, over all four gates.

    The paper prints ĥ where ĥ' stands for the embeddings; its text makes them functions of x,
    and its authors' code takes ĥ', as here. The paper's dropout of tanh(g) is not part of this.

    Args:
      params: the weights.
      carry: the states before, c and h (*B, H), small_c and small_h (*B, N).
      x: (*B, D) floating point.

    Returns:
      The states after, in the dtypes of those before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import HyperLSTMCarry, hyper_lstm_step, init_hyper_lstm
      >>> params = init_hyper_lstm(jax.random.key(0), features=3, hidden=8, hyper=4)
      >>> carry = HyperLSTMCarry(jnp.zeros(8), jnp.zeros(8), jnp.zeros(4), jnp.zeros(4))
      >>> carry, h = hyper_lstm_step(params, carry, jnp.ones(3))
      >>> h.shape
      (8,)

    References:
      Ha, Dai and Le 2016, HyperNetworks, arXiv:1609.09106, appendix A.2.2, eq. 10 to 13.
    """
    return _unroll.step(params, carry, x)


def _inputs(params, x):
    check_features(x, params.w_x.shape[0], "x", "params.w_x")
    of_x = params.small.w_x[params.w_h.shape[0] :]
    return project(x, params.w_x), project(x, of_x) + params.small.b


def _recur(params, carry, z):
    (z, small_z), small = z, params.small
    for name, like in (("c", params), ("h", params), ("small_c", small), ("small_h", small)):
        expected = (*z.shape[:-2], like.w_h.shape[0])
        check_shape(getattr(carry, name), expected, f"carry.{name}", "as x and the params have it")
    of_h = small.w_x[: params.w_h.shape[0]]
    a = small_z + project(carry.h, of_h) + project(carry.small_h, small.w_h)
    small_c, small_h = _advance(a, carry.small_c, small.norm, "small_")
    z_h, z_x, z_b = jnp.moveaxis(project(small_h.astype(carry.small_h.dtype), params.w_z), -3, 0)
    embeddings = jnp.stack([z_h + params.b_z[0], z_x + params.b_z[1], z_b])
    d_h, d_x, bias = jnp.einsum("p...ge,pgeh->p...gh", embeddings, params.w_d)
    a = d_h * project(carry.h, params.w_h) + d_x * z + bias + params.b
    c, h = _advance(a, carry.c, params.norm)
    carry = cast(HyperLSTMCarry(c, h, small_c, small_h), carry)
    return carry, carry.h


_unroll = HoistedUnroll(_inputs, _recur)


def _advance(a, c, norm, small=""):
    """c' and h' of an LSTM, of what goes into its gates (*B, 4, H)."""
    if norm is not None:
        a = normalised(a) * norm.gain + norm.b
    i, f, g, o = activate(a, sigmoid, sigmoid, tanh, sigmoid)
    i, f, g, o = named(**{f"{small}i": i, f"{small}f": f, f"{small}g": g, f"{small}o": o})
    c = f * c + i * g
    shown = c if norm is None else normalised(c) * norm.gain_c + norm.b_c
    return c, o * tanh(shown)


@cell
def hyper_lstm(
    hidden: int, *, hyper: int = 128, embedding: int = 4, layer_norm: bool = False
) -> Parts:
    """An LSTM whose weights a smaller LSTM rescales: `hyper_lstm_step` as a `Cell`.

    Args:
      hidden: H, the size of the states.
      hyper: N, the size of the smaller LSTM's states; 128 for the paper's H = 1000.
      embedding: E, the size of an embedding z; the paper has 4 to 64.
      layer_norm: whether to normalise both LSTMs.

    Returns:
      A Cell with params `HyperLSTMParams`, carry `HyperLSTMCarry` and output h (*B, H). Params
      are in the dtype of the x that `init` is given; with half precision both cell states are
      float32, as is the gates' arithmetic.

    Raises:
      ValueError: if a size is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.hyper_lstm(64, hyper=16), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `hyper_lstm_step`.
    """
    for name, size in (("hidden", hidden), ("hyper", hyper), ("embedding", embedding)):
        check_size(size, name)
    sizes = {"hyper": hyper, "embedding": embedding, "layer_norm": layer_norm}

    def init(key, x):
        check_floating(x, "x")
        return init_hyper_lstm(key, x.shape[-1], hidden, **sizes, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, wide = state_dtypes(params, x)
        zeros = lambda size, dtype: jnp.zeros((*x.shape[:-1], size), dtype)
        of_small = zeros(hyper, wide), zeros(hyper, dtype)
        return HyperLSTMCarry(zeros(hidden, wide), zeros(hidden, dtype), *of_small)

    return init, initial_carry, hyper_lstm_step, _unroll
