"""Convolutional LSTM: an LSTM whose states are images, in one, two or three dimensions."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxlstm.base import Array, Parts, cell, vary_alike
from jaxlstm.checks import check, check_features, check_floating, check_shape, check_size, describe
from jaxlstm.gated import state_dtypes
from jaxlstm.gates import activate, gates, named, sigmoid, tanh
from jaxlstm.initializers import gate_weights
from jaxlstm.kernels.recurrence import accumulator, cast


class ConvLSTMParams(NamedTuple):
    w_x: Array  # (*K, C, 4, F)  gates i, f, g, o
    w_h: Array  # (*K, F, 4, F)
    b: Array  # (4, F)
    peephole: Array | None = None  # (3, *S, F)  i, f, o


class ConvLSTMCarry(NamedTuple):
    c: Array  # (*B, *S, F)  cell state; float32 where h is of half precision
    h: Array  # (*B, *S, F)  hidden state


def init_convlstm(
    key: Array,
    features: int,
    channels: int,
    kernel: tuple[int, ...],
    *,
    peephole: tuple[int, ...] | None = None,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> ConvLSTMParams:
    """Draws the params of a convolutional LSTM.

    Glorot input weights, zero biases but the forget gate's, and peepholes of zero. Each gate's
    and each offset's block of recurrent weights is orthogonal, over the square root of their
    number, so that the (K F, F) matrix of a gate has orthonormal columns. (Keras draws one
    such matrix for all gates together.)

    Args:
      key: a PRNG key.
      features: C, the channels of an input.
      channels: F, the channels of the states.
      kernel: K, the size of the convolutions in each dimension of space.
      peephole: S, the shape of space, for peephole weights, of which each place has its own;
        None for none.
      forget_bias: initial value of the forget gate's bias.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer, or `peephole` has another number of
        dimensions than `kernel`.

    Example:
      >>> import jax
      >>> from jaxlstm import init_convlstm
      >>> params = init_convlstm(jax.random.key(0), 3, 8, (5, 5), peephole=(16, 20))
      >>> params.w_h.shape, params.peephole.shape
      ((5, 5, 8, 4, 8), (3, 16, 20, 8))
    """
    check_size(features, "features")
    check_size(channels, "channels")
    _check_kernel(kernel)
    fits = peephole is None or len(peephole) == len(kernel)
    check(fits, "peephole", f"the {len(kernel)} sizes of space", repr(peephole))
    drawn = gate_weights(key, features, channels, (*kernel, 4), dtype)
    scale = 1 / math.sqrt(math.prod(kernel))
    w_x, w_h = (scale * jnp.moveaxis(w, 0, len(kernel)) for w in drawn)
    return ConvLSTMParams(
        w_x,
        w_h,
        jnp.zeros((4, channels), dtype).at[1].set(forget_bias),
        None if peephole is None else jnp.zeros((3, *peephole, channels), dtype),
    )


def convlstm_step(
    params: ConvLSTMParams, carry: ConvLSTMCarry, x: Array
) -> tuple[ConvLSTMCarry, Array]:
    """One step of a convolutional LSTM, * being convolution over space:

        i = σ(x * W_i + h * U_i + p_i ⊙ c + b_i)
        f = σ(x * W_f + h * U_f + p_f ⊙ c + b_f)
        g = tanh(x * W_g + h * U_g + b_g)
        c' = f ⊙ c + i ⊙ g
        o = σ(x * W_o + h * U_o + p_o ⊙ c' + b_o)
        h' = o ⊙ tanh(c')

    Space keeps its shape: zeros stand outside of it, half of K - 1 of them on either side, and
    of an odd number one more at the end ("SAME"). The kernel is not flipped, as everywhere in
    deep learning. Peepholes p, one for each place, are left out where they are None; Keras has
    none.

    Args:
      params: the weights; the number of dimensions of space is that of their kernel.
      carry: the states before, c and h (*B, *S, F).
      x: (*B, *S, C) floating point.

    Returns:
      The states after, in the dtypes of those before, and h' (*B, *S, F).

    Raises:
      ValueError: if x or the carry does not fit the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import ConvLSTMCarry, convlstm_step, init_convlstm
      >>> params = init_convlstm(jax.random.key(0), features=3, channels=8, kernel=(5, 5))
      >>> carry = ConvLSTMCarry(c=jnp.zeros((2, 16, 20, 8)), h=jnp.zeros((2, 16, 20, 8)))
      >>> carry, h = convlstm_step(params, carry, jnp.ones((2, 16, 20, 3)))
      >>> h.shape
      (2, 16, 20, 8)

    References:
      Shi et al. 2015, Convolutional LSTM network: a machine learning approach for
      precipitation nowcasting, arXiv:1506.04214, eq. 3.
    """
    return _recur(params, carry, _inputs(params, x))


def _check_kernel(kernel):
    fits = isinstance(kernel, tuple) and 1 <= len(kernel) <= 3
    check(fits, "kernel", "a tuple of 1, 2 or 3 sizes", repr(kernel))
    for size in kernel:
        check_size(size, "kernel")


def _check_input(x, dimensions):
    check_floating(x, "x")
    expected = f"{dimensions} axes of space and one of channels"
    check(x.ndim > dimensions, "x", expected, describe(x))


def _convolve(x, w):
    """x (..., *S, C) and w (*K, C, 4, F), as (..., *S, 4, F), in the accumulator's dtype."""
    *kernel, features, number, channels = w.shape
    image = x.shape[-len(kernel) - 1 :]
    dtype = jnp.result_type(x, w)
    shape = x.shape[:-1]
    x = x.reshape(math.prod(x.shape[: -len(image)]), *image).astype(dtype)
    a = _convolution(x, w.reshape(*kernel, features, number * channels).astype(dtype))
    return a.reshape(*shape, number, channels)


@jax.custom_jvp
def _convolution(x, w):
    """x (N, *S, C) and w (*K, C, O), as (N, *S, O)."""
    space = "DHW"[-len(w.shape[:-2]) :]
    return lax.conv_general_dilated(
        x,
        w,
        window_strides=(1,) * len(space),
        padding="SAME",
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        preferred_element_type=accumulator(x.dtype),
    )


def _convolution_jvp(primals, tangents):
    """Along w, the sum of products, one for each place of the kernel, of which x alone is kept.

    Their transpose is the weights' gradient. XLA's own, a convolution with the image for its
    kernel, takes several times as long in a loop on the CPU.
    """
    (x, w), (d_x, d_w) = primals, tangents
    along = [] if isinstance(d_x, SymbolicZero) else [_convolution(d_x, w)]
    if not isinstance(d_w, SymbolicZero):
        along.append(jax.checkpoint(_by_places, prevent_cse=False)(x, d_w))
    return _convolution(x, w), functools.reduce(jnp.add, along)


_convolution.defjvp(_convolution_jvp, symbolic_zeros=True)


def _by_places(x, w):
    """The convolution as a sum of products."""
    *kernel, features, outputs = w.shape
    pad = [(0, 0), *(((k - 1) // 2, k // 2) for k in kernel), (0, 0)]
    padded = jnp.pad(x, pad)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(total, s):
        place, w = s
        seen = lax.dynamic_slice(padded, [0, *place, 0], x.shape).reshape(-1, features)
        return total + jnp.matmul(seen, w, preferred_element_type=total.dtype), None

    places = np.stack([at.ravel() for at in np.indices(kernel)], 1)
    total = jnp.zeros((x.size // features, outputs), accumulator(x.dtype))
    total, *_ = vary_alike((total, padded, w))
    total, _ = lax.scan(add, total, (places, w.reshape(-1, features, outputs)))
    return total.reshape(*x.shape[:-1], outputs)


def _inputs(params, x):
    dimensions = params.w_x.ndim - 3
    _check_input(x, dimensions)
    check_features(x, params.w_x.shape[dimensions], "x", "params.w_x")
    return _convolve(x, params.w_x) + params.b


def _recur(params, carry, z):
    _, w_h, _, peephole = params
    c, h = carry
    shape = (*z.shape[:-2], w_h.shape[-1])
    for name, state in carry._asdict().items():
        check_shape(state, shape, f"carry.{name}", "as x and params.w_h have it")
    a = z + _convolve(h, w_h)
    if peephole is None:
        i, f, g, o = activate(a, sigmoid, sigmoid, tanh, sigmoid)
        i, f, g, o = named(i=i, f=f, g=g, o=o)
        c = f * c + i * g
    else:
        place = (3, *shape[-w_h.ndim + 2 :])
        check_shape(peephole, place, "params.peephole", "as x and params.w_h have it")
        p_i, p_f, p_o = peephole
        a_i, a_f, a_g, a_o = gates(a)
        before = jnp.stack([a_i + p_i * c, a_f + p_f * c, a_g], -2)
        i, f, g = activate(before, sigmoid, sigmoid, tanh)
        i, f, g = named(i=i, f=f, g=g)
        c = f * c + i * g
        (o,) = named(o=sigmoid(a_o + p_o * c))
    carry = cast(ConvLSTMCarry(c, o * tanh(c)), carry)
    return carry, carry.h


@cell
def convlstm(channels: int, kernel: tuple[int, ...], *, peephole: bool = False) -> Parts:
    """A convolutional LSTM: `convlstm_step` as a `Cell`.

    Args:
      channels: F, the channels of the states.
      kernel: K, the size of the convolutions in each dimension of space: one, two or three.
      peephole: whether the gates see the cell state, each place with weights of its own, which
        bind the params to the shape of space that `init` is given.

    Returns:
      A Cell with inputs (*B, *S, C), params `ConvLSTMParams`, carry `ConvLSTMCarry` and output
      h (*B, *S, F). Params are in the dtype of the x that `init` is given; with half precision
      c is float32, as is the gates' arithmetic.

    Raises:
      ValueError: if `channels` is not a positive integer, or `kernel` not a tuple of them.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.convlstm(8, (3, 3)), jnp.ones((10, 2, 16, 20, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 2, 16, 20, 8)

    References:
      See `convlstm_step`.
    """
    check_size(channels, "channels")
    _check_kernel(kernel)

    def init(key, x):
        _check_input(x, len(kernel))
        space = tuple(x.shape[-len(kernel) - 1 : -1]) if peephole else None
        return init_convlstm(key, x.shape[-1], channels, kernel, peephole=space, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, wide = state_dtypes(params, x)
        zeros = lambda dtype: jnp.zeros((*x.shape[:-1], channels), dtype)
        return ConvLSTMCarry(zeros(wide), zeros(dtype))

    # Convolutions of all inputs at once take memory, and twice the time of step by step.
    return init, initial_carry, convlstm_step
