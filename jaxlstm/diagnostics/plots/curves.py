"""Curves of several networks, each of several seeds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlstm.checks import check
from jaxlstm.diagnostics.plots.drawing import axes_or_new, numbers


def gradient_norms(norms: Mapping[str, Any], axes: Any = None, *, lags: Any = None) -> Any:
    """Norms of gradients or Jacobian products against the lag, for several networks.

    Of several seeds, or sequences, the median, the middle half and all of them, bounds between two
    being in their middle. What is not a number counts as the largest; where a line or a band would
    need it, there is a gap.

    Args:
      norms: for each network by its name (T,), or (seeds, T); of a batch, the transpose of what
        `jacobian_norms` gives.
      axes: matplotlib's, to draw into; None for a new figure's.
      lags: (T,), in steps; None for 1 to each T, as of `jacobian_norms`.

    Returns:
      The Axes, with a line for each network, and a logarithmic scale.

    Raises:
      ImportError: if matplotlib is needed and not installed.
      ValueError: if there is no network, or an argument has not these shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm.diagnostics import plots
      >>> lags = jnp.arange(20)
      >>> axes = plots.gradient_norms({"elman": 0.5**lags, "lstm": 0.9**lags}, lags=lags)
      >>> [line.get_label() for line in axes.lines], axes.get_yscale()
      (['elman', 'lstm'], 'log')

    References:
      Hochreiter, Bengio, Frasconi and Schmidhuber 2001, Gradient flow in recurrent nets.
    """
    axes = _curves(norms, "norms", lags, "lags", 1, axes)
    axes.set(xlabel="lag, in steps", ylabel="norm", yscale="log")
    return axes


def loss_curves(losses: Mapping[str, Any], axes: Any = None, *, steps: Any = None) -> Any:
    """Losses over training, of several seeds: the median, the middle half, and all of them.

    A loss that is not a number counts as the largest: a seed that is lost is not left out. Where a
    line or a band would need it, there is a gap.

    Args:
      losses: for each network by its name (T,), or (seeds, T).
      axes: matplotlib's, to draw into; None for a new figure's.
      steps: (T,), at which the losses are; None for 0 to each T - 1.

    Returns:
      The Axes, with a line for each network.

    Raises:
      ImportError: if matplotlib is needed and not installed.
      ValueError: if there is no network, or an argument has not these shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm.diagnostics import plots
      >>> axes = plots.loss_curves({"gru": 1 / jnp.arange(1, 31).reshape(3, 10)})
      >>> len(axes.lines), len(axes.collections)
      (1, 2)
    """
    axes = _curves(losses, "losses", steps, "steps", 0, axes)
    axes.set(xlabel="step", ylabel="loss")
    return axes


def _curves(named, argument, at, argument_at, first, axes):
    """Medians as lines, the middle half and the whole as bands."""
    check(isinstance(named, Mapping) and len(named) > 0, argument, "a dict of arrays", repr(named))
    curves = {}
    for name, values in named.items():
        shapes = (("T",), ("seeds", "T"))
        curves[name] = np.atleast_2d(numbers(values, f"{argument} {name!r}", *shapes))
    if at is not None:
        at = numbers(at, argument_at, ("T",))
        for name, values in curves.items():
            expected = f"{len(at)} steps, as {argument_at} has them"
            check(values.shape[1] == len(at), f"{argument} {name!r}", expected, values.shape[1])
    axes = axes_or_new(axes, 6, 3)
    for name, values in curves.items():
        x = first + np.arange(values.shape[1]) if at is None else at
        place = np.linspace(0, len(values) - 1, 5)
        ordered = np.sort(values, axis=0)  # NaN last
        parts = ordered[np.floor(place).astype(int)] / 2 + ordered[np.ceil(place).astype(int)] / 2
        (line,) = axes.plot(x, parts[2], label=name)
        for low, high in ((0, 4), (1, 3)) if len(values) > 1 else ():
            style = dict(color=line.get_color(), alpha=0.2, linewidth=0)
            axes.fill_between(x, parts[low], parts[high], **style)
    axes.legend()
    return axes
