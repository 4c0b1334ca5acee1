"""What the modules beside this one share: named arrays, libraries that may be missing."""

import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.base import Array
from jaxlstm.checks import check, is_concrete


def needed(library: str, extra: str) -> Any:
    """The module of that name, imported now.

    Raises:
      ImportError: if it is not installed, saying what would install it.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        message = f"{library} can't be imported ({error}): pip install 'jaxlstm[{extra}]'"
        raise ImportError(message) from error


class Entries:
    """Named arrays that are taken out one after another.

    Attributes:
      source: what they are of, for errors: `"state_dict"`.
      arrays: what there was, by name.
      left: the names not taken yet.
    """

    def __init__(self, source: str, arrays: Mapping[str, Any]):
        check(isinstance(arrays, Mapping), source, "a mapping of names to arrays", type(arrays))
        self.source = source
        self.arrays = dict(arrays)
        self.left = list(self.arrays)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def take(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """The array of that name; None in `shape` stands for any size.

        Raises:
          ValueError: if there is none, or it has another shape, or is not floating point.
        """
        entry = f"{self.source} {name!r}"
        check(name in self.arrays, entry, "an array", f"none among {', '.join(self.arrays)}")
        array = to_jax(self.arrays[name], entry)
        fits = len(array.shape) == len(shape)
        fits = fits and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        shown = str(shape).replace("None", "any")
        check(fits, entry, f"shape {shown}", f"{array.shape}")
        self.left.remove(name)
        return array

    def finish(self) -> None:
        """Raises ValueError if anything was left."""
        check(not self.left, self.source, "no other entries", ", ".join(map(repr, self.left)))


def to_jax(value: Any, entry: str) -> Array:
    """A floating-point array, of one of PyTorch, NumPy or JAX, whether traced or not.

    Raises:
      ValueError: if it is not floating point, or float64 where JAX has only float32; `entry` is
        its name.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy has not
            value = jnp.asarray(value.float().numpy()).astype(jnp.bfloat16)
        else:
            value = value.numpy()
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    check(floating, entry, "floating-point numbers", array.dtype)
    own = jnp.asarray(array)
    expected = "jax_enable_x64 to be set, or float32"
    check(own.dtype == array.dtype, entry, expected, array.dtype)
    return own


def to_numpy(params: Any) -> Any:
    """A tree of arrays as NumPy's; ValueError if they are traced, as inside of `jit`."""
    for name, leaf in named_leaves(params).items():
        array = hasattr(leaf, "__array__") and is_concrete(leaf)
        check(array, f"params {name!r}", "an array, not a traced one", type(leaf).__name__)
    return jax.tree.map(np.asarray, params)


def split(w: Array, gates: int) -> Array:
    """(..., G*H), gates side by side, as (..., G, H)."""
    return w.reshape(*w.shape[:-1], gates, w.shape[-1] // gates)


def join(w: Array) -> Array:
    """(..., G, H) as (..., G*H)."""
    return w.reshape(*w.shape[:-2], -1)


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, `"0.w_x"`; a leaf that is the tree is `"params"`.

    Raises:
      ValueError: if two leaves have one path, as those of keys with dots in them may.
    """
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".") or "params"
    names = [name(path) for path, _ in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    check(not twice, "params", "entries of different names", ", ".join(twice))
    return dict(zip(names, (leaf for _, leaf in paths), strict=True))
