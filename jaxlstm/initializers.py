"""Initial weights of gated cells, and others to put in their place: params to params."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers

from jaxlstm.base import Array
from jaxlstm.checks import check, describe


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4, 5))
def gate_weights(
    key: Array,
    features: int,
    hidden: int,
    gates: tuple[int, ...],
    dtype: Any,
    recurrent: int | None = None,
) -> tuple[Array, Array]:
    """Input and recurrent weights, each gate's block drawn by itself.

    Input blocks are Glorot uniform (Glorot and Bengio 2010, eq. 16), recurrent blocks
    orthogonal (Saxe et al. 2014, arXiv:1312.6120). Keras and Flax's NNX draw one orthogonal
    (H, 4H) matrix instead, of which no gate's block is orthogonal.

    Args:
      key: a PRNG key.
      features: D.
      hidden: H.
      gates: the shape of the axes of gates: `(4,)` for an LSTM, `()` for none.
      dtype: of the weights.
      recurrent: R, the size of what is fed back; None for H.

    Returns:
      (D, *gates, H) and (R, *gates, H).
    """

    def blocks(key, draw):
        drawn = jax.vmap(draw)(jax.random.split(key, math.prod(gates)))
        drawn = jnp.moveaxis(drawn, 0, 1).astype(dtype)
        return drawn.reshape(drawn.shape[0], *gates, hidden)

    key_x, key_h = jax.random.split(key)
    wide = jnp.promote_types(dtype, jnp.float32)  # drawn so, and then rounded
    glorot = lambda key: initializers.glorot_uniform()(key, (features, hidden), wide)
    rows = hidden if recurrent is None else recurrent
    turn = lambda key: orthogonal(key, max(rows, hidden), wide)[:rows, :hidden]
    return blocks(key_x, glorot), blocks(key_h, turn)


@functools.partial(jax.jit, static_argnums=(1, 2))
def orthogonal(key: Array, size: int, dtype: Any = jnp.float32) -> Array:
    """A random orthogonal matrix, uniform over all of them (Haar).

    A product of reflections H_k, each of a normal vector's first k entries onto an axis, with
    random signs. `jax.nn.initializers.orthogonal` draws from the same distribution by a QR
    factorisation; but several batched ones at once, as in `jit` of a stack's init, can wait
    for one another for ever on a CPU with few threads (jaxlib 0.10 and 0.12).

    Args:
      key: a PRNG key.
      size: n, of rows and columns.
      dtype: float32 or float64.

    Returns:
      (n, n).

    References:
      Stewart 1980, The efficient generation of random orthogonal matrices, SIAM Journal on
      Numerical Analysis 17(3).
    """
    normal = jax.random.normal(key, (size, size), dtype)
    place = jnp.arange(size)

    def reflect(k, q):
        x = jnp.where(place >= k, normal[k], 0)
        sign = jnp.where(x[k] < 0, -1, 1).astype(dtype)
        v = x + sign * jnp.linalg.norm(x) * (place == k)
        q = q - jnp.outer(q @ v, 2 * v / (v @ v))
        return q * jnp.where(place == k, -sign, 1)

    return jax.lax.fori_loop(0, size, reflect, jnp.eye(size, dtype=dtype))


def uniform(key: Array, params: Any, bound: float) -> Any:
    """All of a cell's params drawn anew from U(-bound, bound), biases too.

    PyTorch's recurrent layers have a bound of 1 / √H, Zaremba et al. (2014) 0.1 or 0.05.

    Args:
      key: a PRNG key.
      params: of any cell or layer, or shapes of them.
      bound: the largest absolute value, above 0.

    Returns:
      Params of the same shapes and dtypes.

    Raises:
      ValueError: if the bound is not positive.

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm import initializers
      >>> params = jl.init_lstm(jax.random.key(0), features=3, hidden=4)
      >>> params = initializers.uniform(jax.random.key(1), params, bound=4**-0.5)
      >>> bool(abs(params.b).max() <= 0.5)
      True
    """
    check(bound > 0, "bound", "a positive number", repr(bound))
    leaves, tree = jax.tree.flatten(params)
    draw = lambda k, a: jax.random.uniform(k, a.shape, a.dtype, -bound, bound)
    return jax.tree.unflatten(tree, map(draw, jax.random.split(key, len(leaves)), leaves))


def chrono(key: Array, b: Array, longest: int, *, forget: int, input: int | None) -> Array:
    """Biases of gates that remember for times of all lengths up to the longest.

        b_f ~ log U(1, T_max - 1),   b_i = -b_f

    A unit with a forget gate of σ(b) forgets within about 1 + exp(b) steps.

    Args:
      key: a PRNG key.
      b: (G, H) the biases of a cell; those of other gates stay as they are.
      longest: T_max, in steps, at least 3.
      forget: the row of the gate that keeps when it is open: 1 in `LSTMParams.b`, 0 in
        `JANETParams.b`, 1 (z) in `GRUParams.b`.
      input: the row of the gate that lets in, 0 in `LSTMParams.b`; None where there is none.

    Returns:
      The biases, (G, H).

    Raises:
      ValueError: if `longest` is less than 3, or `b` is not (G, H).

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm import initializers
      >>> params = jl.init_lstm(jax.random.key(0), features=3, hidden=4)
      >>> b = initializers.chrono(jax.random.key(1), params.b, longest=100, forget=1, input=0)
      >>> params = params._replace(b=b)
      >>> bool((b[0] == -b[1]).all() & (b[1] > 0).all())
      True

    References:
      Tallec and Ollivier 2018, Can recurrent neural networks warp time?, arXiv:1804.11188,
      eq. 16; van der Westhuizen and Lasenby 2018, arXiv:1804.04849, for JANET.
    """
    check(longest >= 3, "longest", "at least 3 steps", repr(longest))
    check(b.ndim == 2, "b", "(G, H)", describe(b))
    wide = jnp.promote_types(b.dtype, jnp.float32)
    times = jax.random.uniform(key, b.shape[1:], wide, 1, longest - 1)
    keep = jnp.log(times).astype(b.dtype)
    b = b.at[forget].set(keep)
    return b if input is None else b.at[input].set(-keep)


def identity(w_h: Array, scale: float = 1.0) -> Array:
    """The identity times a scale, for the recurrent weights of a relu network: IRNN.

    Beside it the paper has biases of zero and input weights of deviation 0.001.

    Args:
      w_h: (H, H) the weights to take the place of.
      scale: of the identity; below 1 for short memories (0.01 in the paper's speech).

    Returns:
      (H, H).

    Raises:
      ValueError: if `w_h` is not square.

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm import initializers
      >>> params = jl.init_elman(jax.random.key(0), features=3, hidden=2)
      >>> params = params._replace(w_h=initializers.identity(params.w_h))
      >>> params.w_h.tolist()
      [[1.0, 0.0], [0.0, 1.0]]

    References:
      Le, Jaitly and Hinton 2015, arXiv:1504.00941, section 3.
    """
    check(w_h.ndim == 2 and w_h.shape[0] == w_h.shape[1], "w_h", "(H, H)", describe(w_h))
    return scale * jnp.eye(len(w_h), dtype=w_h.dtype)
