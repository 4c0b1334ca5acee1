"""Weights of cuDNN's LSTM, one flat vector as `jax.experimental.rnn` has it, in and out."""

import itertools
import math
from typing import Any

import jax.numpy as jnp

from jaxlstm.base import Array, Cell, Layer, Params
from jaxlstm.checks import check, check_size
from jaxlstm.interop.arrays import join, to_jax
from jaxlstm.interop.calls import check_kinds, parts_of
from jaxlstm.interop.torch import from_torch


def from_cudnn(
    weights: Any, *, features: int, hidden: int, layers: int = 1, bidirectional: bool = False
) -> tuple[Cell | Layer, Params]:
    """The LSTM, and its params, that a vector of cuDNN's is.

    The vector holds the matrices of all layers before the biases of all layers, and of a layer
    both directions; cuDNN adds two biases, of which only the sum counts. Gates are in our order,
    whatever `jax.experimental.rnn.swap_lstm_gates` may suggest: that is for AMD's MIOpen, i, f,
    o, g.

    Args:
      weights: float32, as `jax.experimental.rnn.init_lstm_weight` gives it; traced ones too.
      features: D, the size of an input.
      hidden: H, the size of the states.
      layers: how many there are.
      bidirectional: whether each is of both directions.

    Returns:
      A Cell (one layer), or a stack of Cells, or of Layers where both directions are; and its
      params. `scan` and `apply` take time first, where `jax.experimental.rnn` takes the batch.

    Raises:
      ValueError: if the sizes are not positive integers, or the vector is not one of them.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm.interop import cudnn
      >>> cell, params = cudnn.from_cudnn(jnp.ones(416), features=3, hidden=8)
      >>> cell, params.w_x.shape
      (lstm(8), (3, 4, 8))
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    check_size(layers, "layers")
    shapes = _shapes(features, hidden, layers, bidirectional)
    ends = list(itertools.accumulate(map(math.prod, shapes.values())))
    weights = to_jax(weights, "weights")
    sizes = f"{features=}, {hidden=}, {layers=} and {bidirectional=}"
    shape = (ends[-1],)
    check(weights.shape == shape, "weights", f"shape {shape}, as of {sizes}", weights.shape)
    check(weights.dtype == jnp.float32, "weights", "float32, as cuDNN has them", weights.dtype)
    pieces = jnp.split(weights, ends[:-1])
    named = zip(shapes.items(), pieces, strict=True)
    return from_torch({name: piece.reshape(shape) for (name, shape), piece in named})


def _shapes(features, hidden, layers, bidirectional):
    """PyTorch's names and shapes of the pieces, in cuDNN's order."""
    ends = ("", "_reverse") if bidirectional else ("",)
    wide = len(ends) * hidden
    suffixes = [(f"_l{n}{end}", wide if n else features) for n in range(layers) for end in ends]
    shapes = {}
    for suffix, size in suffixes:
        shapes[f"weight_ih{suffix}"] = (4 * hidden, size)
        shapes[f"weight_hh{suffix}"] = (4 * hidden, hidden)
    for suffix, _ in suffixes:
        shapes |= {f"bias_{of}{suffix}": (4 * hidden,) for of in ("ih", "hh")}
    return shapes


def to_cudnn(layer: Cell | Layer, params: Params) -> Array:
    """The vector of these params that `jax.experimental.rnn.lstm` takes.

    The bias is the first of the two, b_ih; b_hh is zero.

    Args:
      layer: an `lstm`, a `bidirectional` of two, or a `stack` of such layers.
      params: its params, float32; traced ones too.

    Returns:
      The weights, one axis of float32. `jax.experimental.rnn.lstm` takes and gives its states
      as (L, B, H), L each layer's direction from the start and then that from the end.

    Raises:
      ValueError: if cuDNN has no such layer (peepholes, projection, layer normalisation,
        clipping, a sum of both directions), the layers differ in size or number of directions,
        or the params are not float32 or don't fit the outputs of the layer before.

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import cudnn
      >>> params = jl.init_lstm(jax.random.key(0), features=3, hidden=8)
      >>> cudnn.to_cudnn(jl.lstm(8), params).shape
      (416,)
    """
    matrices, biases, kinds = [], [], set()
    parts = parts_of(layer, params)
    for part in parts:
        combined = part.combine in (None, "concatenate")
        check(combined, "layer", "outputs side by side, as cuDNN has them", part.combine)
        for call, own in part.cells:
            check_kinds(call, "cuDNN", {"lstm": []})
            for name in ("w_x", "w_h", "b"):
                dtype = getattr(own, name).dtype
                check(dtype == jnp.float32, f"params.{name}", "float32, as cuDNN has them", dtype)
            matrices += [join(own.w_x).T, join(own.w_h).T]
            biases += [own.b, jnp.zeros_like(own.b)]
            kinds.add((call.arguments["hidden"], len(part.cells)))
    check(len(kinds) == 1, "layer", "layers of one kind and size, as cuDNN has them", layer)
    return jnp.concatenate([piece.ravel() for piece in (*matrices, *biases)])
