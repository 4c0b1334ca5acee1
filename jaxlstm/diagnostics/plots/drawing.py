"""What every picture begins with: arrays of the right shape, and Axes to draw into."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlstm.checks import check, describe
from jaxlstm.interop.arrays import needed


def numbers(values: Any, argument: str, *shapes: tuple[str, ...]) -> np.ndarray:
    """The values in double precision; ValueError unless they have the axes of one of the shapes."""
    array = np.asarray(values)
    kinds = np.bool_, np.integer, np.floating
    real = any(jnp.issubdtype(array.dtype, kind) for kind in kinds)
    fits = array.ndim in map(len, shapes) and array.size > 0
    expected = " or ".join(f"({', '.join(s)}{',' * (len(s) == 1)})" for s in shapes)
    check(real and fits, argument, f"numbers {expected}", describe(array))
    return array.astype(float)


def axes_or_new(axes: Any, width: float, height: float) -> Any:
    """The axes, or those of a new figure of that size in inches.

    Raises:
      ImportError: if there are none and matplotlib is not installed.
    """
    if axes is not None:
        return axes
    pyplot = needed("matplotlib.pyplot", "plots")
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]
