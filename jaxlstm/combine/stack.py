"""Depth: layers one upon another."""

import functools
from typing import Any, NamedTuple

import jax

from jaxlstm import sequence
from jaxlstm.base import Cell, Layer, cell
from jaxlstm.checks import check, check_options


class StackUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` layer by layer, so that each layer keeps its own."""

    cells: tuple[Cell, ...]

    def __call__(self, params, carry, xs, *, valid, resets, initial, implementation):
        carries = []
        initials = initial or (None,) * len(self.cells)
        for part, p, c, first in zip(self.cells, params, carry, initials, strict=True):
            c, xs = sequence.unroll(
                part,
                p,
                c,
                xs,
                valid=valid,
                resets=resets,
                initial=first,
                implementation=implementation,
            )
            carries.append(c)
        return tuple(carries), xs

    def explain(self, params, xs):
        answers = {}
        for number, (part, p) in enumerate(zip(self.cells, params, strict=True)):
            answers[f"{number}: {part}"] = sequence.explain(part, p, xs)
            run = lambda p, xs, part=part: sequence.scan(part, p, xs, key=jax.random.key(0))[1]
            xs = jax.eval_shape(run, p, xs)
        return answers


@cell
def stack(*layers: Cell | Layer) -> Any:
    """Layers one upon another, the outputs of each the inputs of the next.

    Args:
      *layers: Cells, or Layers too, as bidirectional ones.

    Returns:
      A Cell if all are Cells, else a Layer. Params and carries are tuples with an entry for
      each layer; the output is that of the last.

    Raises:
      ValueError: if there is no layer, or one is neither Cell nor Layer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> deep, xs = jl.stack(jl.lstm(64), jl.gru(32)), jnp.ones((10, 2, 3))
      >>> deep
      stack(lstm(64), gru(32))
      >>> carry, ys = jl.scan(deep, deep.init(jax.random.key(0), xs[0]), xs)
      >>> ys.shape, carry[1].h.shape
      ((10, 2, 32), (2, 32))

    References:
      Graves, Mohamed and Hinton 2013, arXiv:1303.5778, eq. 11.
    """
    check(len(layers) > 0, "layers", "at least one Cell or Layer", "none")
    for layer in layers:
        check(isinstance(layer, Cell | Layer), "layers", "Cells and Layers", repr(layer))
    if all(isinstance(layer, Cell) for layer in layers):
        return _stack_of_cells(layers)
    return _stack_with_layers(layers)


def _keys(key, layers):
    return [None] * len(layers) if key is None else list(jax.random.split(key, len(layers)))


def _init(layers, key, x):
    params = []
    for layer, k in zip(layers, _keys(key, layers), strict=True):
        x = _output(layers[len(params) - 1], params[-1], x) if params else x
        params.append(layer.init(k, x))
    return tuple(params)


def _output(layer, params, x):
    """The shape and dtype of a layer's output for one step x."""
    key = jax.random.key(0)

    def run(params, x):
        xs = jax.tree.map(lambda a: a[None], x)
        return apply_layer(layer, params, xs, None, key=key)[1]

    ys = jax.eval_shape(run, params, x)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), ys)


def _stack_of_cells(cells):
    def initial_carry(params, x, key=None):
        carries = []
        for part, p, k in zip(cells, params, _keys(key, cells), strict=True):
            if carries:
                n = len(carries) - 1
                x = jax.eval_shape(cells[n].step, params[n], carries[n], x)[1]
            carries.append(part.initial_carry(p, x, k))
        return tuple(carries)

    def step(params, carry, x):
        carries = []
        for part, p, c in zip(cells, params, carry, strict=True):
            c, x = part.step(p, c, x)
            carries.append(c)
        return tuple(carries), x

    init = lambda key, x: _init(cells, key, x)
    return Cell(init, initial_carry, step, StackUnroll(cells))


def _stack_with_layers(layers):
    def apply(params, xs, carry=None, *, key=None, lengths=None, **options):
        check_options(options)
        carries = []
        starts = (None,) * len(layers) if carry is None else carry
        for layer, p, c, k in zip(layers, params, starts, _keys(key, layers), strict=True):
            after, xs = apply_layer(layer, p, xs, c, key=k, lengths=lengths, **options)
            carries.append(after)
            lengths = shorter(layer, lengths)
        return tuple(carries), xs

    shrinking = [layer for layer in layers if isinstance(layer, Layer) and layer.shorten]
    shorten = lambda lengths: functools.reduce(
        lambda n, layer: layer.shorten(n), shrinking, lengths
    )
    init = lambda key, x: _init(layers, key, x)
    return Layer(init, apply, shorten if shrinking else None)


def apply_layer(layer: Cell | Layer, params: Any, xs: Any, carry: Any, **options: Any) -> Any:
    """A Cell's scan or a Layer's apply."""
    if isinstance(layer, Layer):
        return layer.apply(params, xs, carry, **options)
    return sequence.scan(layer, params, xs, carry, **options)


def shorter(layer: Cell | Layer, lengths: Any) -> Any:
    """The lengths of a layer's outputs."""
    if lengths is None or not isinstance(layer, Layer) or layer.shorten is None:
        return lengths
    return layer.shorten(lengths)
