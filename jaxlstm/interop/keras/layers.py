"""Weights of Keras 3's recurrent layers, on any of its backends, in and out."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.base import Cell, Layer, Params
from jaxlstm.checks import check, check_size
from jaxlstm.combine.bidirectional import BidirectionalParams, bidirectional
from jaxlstm.combine.stack import stack
from jaxlstm.interop.arrays import needed
from jaxlstm.interop.calls import check_kinds, parts_of
from jaxlstm.interop.keras.cells import (
    CELLS,
    KINDS,
    Value,
    from_cell,
    kind_of,
    layer_of,
    weights_of,
)

RECURRENT = ["LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"]
MERGES = {"concat": "concatenate", "sum": "sum"}
ONLY_IN_TRAINING = ["Dropout", "SpatialDropout1D"]


def from_keras(layer: Any) -> tuple[Cell | Layer, Params]:
    """The layer, and its params, that a built Keras layer is.

    Keras repeats the output before where a step is masked out, but for its `Bidirectional` and
    with `zero_output_for_mask`; ours is zero there. Its states are [h, c], our carry (c, h).

    Args:
      layer: a `keras.layers.LSTM`, `GRU`, `SimpleRNN` or `ConvLSTM1D` to `3D`; an `RNN` of an
        `LSTMCell`, `GRUCell`, `SimpleRNNCell` or `StackedRNNCells`, or one of these alone; a
        `Bidirectional`; a `Sequential` of such layers or a list of them. Left out is what only
        counts in training (dropout, also as layers between; regularizers, constraints) and what
        is up to the call: `return_sequences`, `return_state`, `stateful`, `unroll`, masks, and
        the dtype to compute in, which for us is that of the params.

    Returns:
      A Cell, a Layer where both directions are, or a stack of such; and its params, in the dtype
      of Keras's variables. `scan` and `apply` take time first, Keras the batch.

    Raises:
      ImportError: if Keras is not installed.
      ValueError: if the layer is not built, or has what ours has not: an activation other than
        tanh (or relu, of a SimpleRNN), a gate other than sigmoid, outputs in reversed order
        (`go_backwards` on its own), merged by product, mean or not at all, strides, dilation,
        "valid" padding, channels first, cells of the user's own. Activations are told by values,
        so that any function that computes tanh passes.

    Example:
      >>> import keras
      >>> from jaxlstm.interop.keras import from_keras
      >>> layer = keras.layers.Bidirectional(keras.layers.GRU(8, return_sequences=True))
      >>> layer.build((None, None, 3))
      >>> both, params = from_keras(layer)
      >>> both, params.forward.w_x.shape
      (bidirectional(gru(8), gru(8)), (3, 3, 8))
    """
    keras = needed("keras", "keras")
    return _joined(_layers(layer, lambda v: keras.ops.convert_to_numpy(v.value)))


def from_weights(layer: Any, weights: Sequence[Any]) -> tuple[Cell | Layer, Params]:
    """`from_keras` with other weights: arrays that may be traced by `jit` and `grad`.

    Args:
      layer: as for `from_keras`, but for a list.
      weights: in the order and shapes of `layer.weights`.

    Returns:
      As `from_keras`.

    Raises:
      ValueError: as `from_keras`; or if there are more or fewer weights, or one is of another
        shape.

    Example:
      >>> import jax, jax.numpy as jnp, keras
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop.keras import from_weights
      >>> layer = keras.layers.LSTM(8)
      >>> layer.build((None, None, 3))
      >>> def loss(weights):
      ...   return jl.scan(*from_weights(layer, weights), jnp.ones((5, 3)))[1].sum()
      >>> kernel, _, _ = jax.grad(loss)([v.value for v in layer.weights])
      >>> kernel.shape
      (3, 32)
    """
    variables = layer.weights
    count = f"{len(variables)}, as {layer.name} has weights"
    check(len(weights) == len(variables), "weights", count, len(weights))
    values = {}
    for variable, weight in zip(variables, weights, strict=True):
        shape = tuple(variable.shape)
        got = tuple(np.shape(weight))
        check(got == shape, f"weights, {variable.path!r}", f"shape {shape}", f"{got}")
        values[id(variable)] = weight
    return _joined(_layers(layer, lambda variable: values[id(variable)]))


def _joined(made):
    if len(made) == 1:
        return made[0]
    return stack(*(layer for layer, _ in made)), tuple(params for _, params in made)


def _layers(layer: Any, value: Value, back: bool = False) -> list[tuple[Any, Params]]:
    """The layers of ours that it is, from the first to the last, and their params."""
    kind = kind_of(layer)
    if kind in ("list", "Sequential", "StackedRNNCells"):
        held = {"Sequential": "layers", "StackedRNNCells": "cells"}.get(kind)
        parts = getattr(layer, held) if held else layer
        parts = [part for part in parts if kind_of(part) not in ONLY_IN_TRAINING]
        check(len(parts) > 0, "layer", "at least one recurrent layer", f"a {kind} of none")
        for part in parts[:-1]:
            last = part.layers[-1] if kind_of(part) == "Sequential" else part
            every = getattr(last, "return_sequences", True)
            expected = "True, as another layer comes after it"
            check(every, f"{last.name}'s return_sequences", expected, every)
        return [made for part in parts for made in _layers(part, value)]
    if kind == "Bidirectional":
        merge = f"{layer.name}'s merge_mode"
        check(layer.merge_mode in MERGES, merge, f"one of {list(MERGES)}", repr(layer.merge_mode))
        ahead, ours = _joined(_layers(layer.forward_layer, value))
        behind, theirs = _joined(_layers(layer.backward_layer, value, back=True))
        both = bidirectional(ahead, behind, combine=MERGES[layer.merge_mode])
        return [(both, BidirectionalParams(ours, theirs))]
    if kind in RECURRENT:
        expected = f"{back} (jl.backward runs back too, but gives outputs at their own times)"
        fits = layer.go_backwards == back
        check(fits, f"{layer.name}'s go_backwards", expected, layer.go_backwards)
        return _layers(layer.cell, value)
    known = [*CELLS, *RECURRENT, "StackedRNNCells", "Bidirectional", "Sequential"]
    check(kind in CELLS, "layer", f"one of Keras's own {', '.join(known)}", kind)
    check(layer.built, layer.name, "a layer with weights: call or build it first", "none")
    return [from_cell(layer, value)]


def to_keras(
    layer: Cell | Layer,
    params: Params,
    *,
    return_sequences: bool = True,
    space: tuple[int, ...] | None = None,
) -> Any:
    """The built Keras layer that has these params.

    Its outputs are zero where a step is masked out, as ours. Keras computes parts of a float64
    layer in float32, on JAX tanh: `layer.cell.activation = jnp.tanh` gives it JAX's own. A layer
    made with other options takes the weights by `set_weights(to_keras(...).get_weights())`.

    Args:
      layer: an `lstm`, `gru`, `gru_reset_before`, `elman` or `convlstm`, a `bidirectional` of
        such cells, or a `stack` of such layers.
      params: its params; those of a cell are all of one dtype, which its Keras layer gets.
      return_sequences: whether to give the outputs of all steps or the last one.
      space: of a ConvLSTM, the sizes of space that Keras builds it for: `(16, 20)`.

    Returns:
      An `LSTM`, `GRU`, `SimpleRNN`, `ConvLSTM1D` to `3D` or `Bidirectional`, or of a stack a
      `Sequential`, where a stack in a stack becomes flat. A GRU's biases (2, 3 H) are `b`, and
      `b_n` among zeros.

    Raises:
      ImportError: if Keras is not installed.
      ValueError: if Keras has no such layer (peepholes, projections, layer normalisation,
        clipping, other cells), or `space` does not fit it.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop.keras import to_keras
      >>> params = jl.init_lstm(jax.random.key(0), features=3, hidden=8)
      >>> layer = to_keras(jl.lstm(8), params)
      >>> layer(jnp.ones((2, 5, 3))).shape
      (2, 5, 8)
    """
    keras = needed("keras", "keras")
    parts = parts_of(layer, params)
    dtypes = sorted({str(a.dtype) for a in jax.tree.leaves(params)})
    check(len(dtypes) == 1, "params", "one dtype", ", ".join(dtypes))
    made, shapes = [], []
    for n, part in enumerate(parts):
        for call, own in part.cells:
            check_kinds(call, "Keras", KINDS)
            shapes.append(_input_shape(call, own, space))
        every = return_sequences or n + 1 < len(parts)
        made.append(_to_layer(part, every, (None, *shapes[-1]), dtypes[0]))
    if len(made) == 1:
        return made[0]
    return keras.Sequential([keras.Input(shapes[0], dtype=dtypes[0]), *made])


def _input_shape(call, params, space):
    """Of a batch, time first: Keras has to know the shape of space, but no other."""
    if call.factory != "convlstm":
        check(space is None, "space", f"None, as {call.factory} has none", repr(space))
        return None, params.w_x.shape[0]
    dimensions = len(call.arguments["kernel"])
    fits = isinstance(space, tuple) and len(space) == dimensions
    expected = f"a tuple of {dimensions}, as Keras builds a ConvLSTM for one shape of space"
    check(fits, "space", expected, repr(space))
    for size in space:
        check_size(size, "space")
    return None, *space, params.w_x.shape[-3]


def _to_layer(part, return_sequences, shape, dtype):
    """The built Keras layer of one cell, or of one for each direction."""
    keras = needed("keras", "keras")
    options = dict(return_sequences=return_sequences, zero_output_for_mask=True, dtype=dtype)
    if jnp.dtype(dtype).itemsize < 4:  # in which Keras can't draw orthogonal weights
        options["recurrent_initializer"] = "glorot_uniform"
    layers = []
    for (call, _), back in zip(part.cells, (False, True), strict=False):
        name, more = layer_of(call)
        layers.append(getattr(keras.layers, name)(go_backwards=back, **options, **more))
    made = layers[0]
    if part.combine:
        merge = {ours: theirs for theirs, ours in MERGES.items()}[part.combine]
        made = keras.layers.Bidirectional(made, merge, backward_layer=layers[1], dtype=dtype)
        layers[0] = made.forward_layer  # a copy
    made.build(shape)
    for layer, (call, params) in zip(layers, part.cells, strict=True):
        layer.set_weights([np.asarray(w) for w in weights_of(call.factory, params)])
    return made
