"""Named arrays of other libraries: taken out one by one, with errors that name the entry."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlstm.checks import check


class Entries:
    """Named arrays that are taken out one after another.

    Attributes:
      arrays: what there was, by name.
      left: the names not taken yet.
    """

    def __init__(self, source: str, arrays: Mapping[str, Any]):
        check(isinstance(arrays, Mapping), source, "a mapping of names to arrays", type(arrays))
        self.source = source
        self.arrays = dict(arrays)
        self.left = list(self.arrays)

    def take(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """The array of that name; None in `shape` stands for any size.

        Raises:
          ValueError: if there is none, or it has another shape, or is not floating point.
        """
        entry = f"{self.source} {name!r}"
        check(name in self.arrays, entry, "an array", f"none among {', '.join(self.arrays)}")
        array = to_numpy(self.arrays[name], entry)
        fits = len(array.shape) == len(shape)
        fits = fits and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        shown = str(shape).replace("None", "any")
        check(fits, entry, f"shape {shown}", f"{array.shape}")
        self.left.remove(name)
        return array

    def finish(self) -> None:
        """Raises ValueError if anything was left."""
        check(not self.left, self.source, "no other entries", ", ".join(map(repr, self.left)))


def to_numpy(value: Any, entry: str) -> np.ndarray:
    """A floating-point array of NumPy's, of a PyTorch tensor or whatever NumPy can read."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy has not
            import ml_dtypes

            value = value.float().numpy().astype(ml_dtypes.bfloat16)
        else:
            value = value.numpy()
    array = np.asarray(value)
    floating = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    check(floating, entry, "floating-point numbers", array.dtype)
    return array
