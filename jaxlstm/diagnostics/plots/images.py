"""Values as colours: of units over time, of the characters of a text, of a memory that is read."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxlstm.checks import check, check_size
from jaxlstm.diagnostics.plots.drawing import axes_or_new, numbers

Bounds = tuple[float, float]
SIGNS = {"\n": "¶", "\t": "→"}  # for what can't be seen


def heat_map(
    values: Any,
    text: Sequence[str] | None = None,
    axes: Any = None,
    *,
    bounds: Bounds | None = None,
) -> Any:
    """Every unit's gate or state over a text or a series, units from top to bottom.

    Args:
      values: (T, H), of one sequence of a `Trace`; what is NaN stays blank.
      text: T characters or words, to stand along the axis of time; None for numbers.
      axes: matplotlib's, to draw into; None for a new figure's.
      bounds: what the colours' ends stand for; None for 0 and the largest value or, if some are
        negative, for the largest magnitude on both sides of 0.

    Returns:
      The Axes, whose image has the values transposed, (H, T).

    Raises:
      ImportError: if matplotlib is needed and not installed.
      ValueError: if an argument has not these shapes, or the bounds are not in order.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.diagnostics import plots, trace
      >>> cell, xs = jl.lstm(8), jnp.ones((5, 3))
      >>> seen = trace(cell, cell.init(jax.random.key(0), xs[0]), xs)
      >>> axes = plots.heat_map(seen.gates["f"], "abcde", bounds=(0, 1))
      >>> axes.images[0].get_array().shape
      (8, 5)

    References:
      Karpathy, Johnson and Fei-Fei 2016, arXiv:1506.02078.
    """
    values = numbers(values, "values", ("T", "H"))
    _check_text(text, len(values), "text")
    scale = _scale(values, bounds, "viridis")
    axes = axes_or_new(axes, min(max(6, 0.13 * len(values) + 1), 16), 3)
    _image(axes, values.T, scale)
    _label(axes.xaxis, text, "time")
    axes.set_ylabel("unit")
    return axes


def coloured_text(
    text: str,
    values: Any,
    axes: Any = None,
    *,
    columns: int = 80,
    bounds: Bounds | None = None,
) -> Any:
    """A text with one unit's value, or the surprise, as the background of each character.

    Args:
      text: T characters; a line ends after its newline, and where it is full.
      values: (T,), of each character; what is NaN stays blank.
      axes: matplotlib's, to draw into; None for a new figure's, as large as the text.
      columns: how many characters a line has at most.
      bounds: what the colours' ends stand for, as for `heat_map`.

    Returns:
      The Axes, whose image has a row for each line.

    Raises:
      ImportError: if matplotlib is needed and not installed.
      ValueError: if there is no text, an argument has not these shapes, or the bounds are not in
        order.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm.diagnostics import plots
      >>> axes = plots.coloured_text("(a)\\n[b]", jnp.array([1, 1, 0, 0, 1, 1, 0]))
      >>> axes.images[0].get_array().shape
      (2, 4)

    References:
      Karpathy, Johnson and Fei-Fei 2016, arXiv:1506.02078, figure 2.
    """
    check(isinstance(text, str) and len(text) > 0, "text", "a str of characters", repr(text))
    values = numbers(values, "values", ("T",))
    _check_text(text, len(values), "text")
    check_size(columns, "columns")
    scale = _scale(values, bounds, "Oranges")
    places = np.array(list(_places(text, columns)))
    height, width = places.max(0) + 1
    grid = np.full((height, width), np.nan)
    grid[tuple(places.T)] = values
    axes = axes_or_new(axes, 0.09 * width + 1.2, max(0.2 * height, 1.0))
    _image(axes, grid, scale | {"alpha": 0.6})
    style = dict(ha="center", va="center", family="monospace", fontsize=9, parse_math=False)
    for character, (row, column) in zip(text, places, strict=True):
        axes.text(column, row, _visible(character), **style)
    axes.set_axis_off()
    return axes


def attention_map(
    weights: Any,
    axes: Any = None,
    *,
    text: Sequence[str] | None = None,
    memory: Sequence[str] | None = None,
) -> Any:
    """How much of each position of a memory every step reads, steps from top to bottom.

    Args:
      weights: (T, M), of one sequence.
      axes: matplotlib's, to draw into; None for a new figure's.
      text: T characters or words, of the steps; None for numbers.
      memory: M characters or words, of the positions; None for numbers.

    Returns:
      The Axes, whose image has the weights.

    Raises:
      ImportError: if matplotlib is needed and not installed.
      ValueError: if an argument has not these shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm.diagnostics import plots
      >>> axes = plots.attention_map(jnp.eye(3), text=["the", "cat", "sat"])
      >>> axes.images[0].get_array().shape
      (3, 3)

    References:
      Bahdanau, Cho and Bengio 2015, arXiv:1409.0473, figure 3.
    """
    weights = numbers(weights, "weights", ("T", "M"))
    _check_text(text, weights.shape[0], "text")
    _check_text(memory, weights.shape[1], "memory")
    axes = axes_or_new(axes, 5, 4)
    _image(axes, weights, _scale(weights, (0, 1), "viridis"))
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    _label(axes.xaxis, memory, "memory")
    _label(axes.yaxis, text, "time")
    return axes


def _check_text(text, length, argument):
    count = length if text is None else len(text)
    check(count == length, argument, f"{length} characters or words", count)


def _scale(values, bounds, rising):
    """Colours for values; those of two signs have white in the middle."""
    if bounds is None:
        finite = values[np.isfinite(values)]
        most = float(np.abs(finite).max(initial=0)) or 1.0
        bounds = (-most if (finite < 0).any() else 0.0, most)
    check(np.shape(bounds) == (2,), "bounds", "a lower and a higher number", bounds)
    low, high = bounds
    check(low < high, "bounds", "the lower one before the higher", bounds)
    return dict(cmap="RdBu_r" if low < 0 < high else rising, vmin=low, vmax=high)


def _image(axes, grid, style):
    image = axes.imshow(grid, aspect="auto", interpolation="nearest", **style)
    axes.figure.colorbar(image, ax=axes, pad=0.02)


def _label(axis, text, name):
    """Characters or words along an axis, or its name."""
    if text is None:
        axis.set_label_text(name)
        return
    words = axis.axis_name == "x" and max(map(len, text)) > 1
    style = dict(family="monospace", fontsize=8, rotation=90 if words else 0, parse_math=False)
    axis.set_ticks(range(len(text)), list(map(_visible, text)), **style)


def _visible(text):
    return "".join(SIGNS.get(c, c if c.isprintable() else "·") for c in text)


def _places(text: str, columns: int) -> Iterator[tuple[int, int]]:
    """The row and the column of each character; a newline ends its line, be it full."""
    row = column = 0
    for character in text:
        if column == columns and character != "\n":
            row, column = row + 1, 0
        yield row, column
        column += 1
        if character == "\n":
            row, column = row + 1, 0
