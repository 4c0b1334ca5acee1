"""What our modules in Flax Linen and in Flax NNX share: inputs, params, carries and the run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen.recurrent import flip_sequences

from jaxlstm.base import Carry, Cell, Params
from jaxlstm.checks import check, describe
from jaxlstm.interop.arrays import to_jax
from jaxlstm.interop.calls import call_of
from jaxlstm.sequence import scan


def feature_axes_of(cell: Cell, given: int | None = None) -> int:
    """How many axes a step has behind those of the batch: 1 for (D,), 3 for pictures.

    Args:
      cell: of a `convlstm` these are space and features; a wrapper has those of the cell that it
        holds, a stack those of its first one; all else has 1, also what a factory made that is
        not of this package.
      given: what somebody says they are, or None.

    Returns:
      `given`, or what the cell tells.

    Raises:
      ValueError: if the cell is known to have another number than the one given.

    Example:
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop.flax_scan import feature_axes_of
      >>> feature_axes_of(jl.stack(jl.convlstm(8, (3, 3)), jl.convlstm(4, (3, 3))))
      3
    """
    known = _known_axes(cell)
    expected = f"None or {known}, as a step of {cell} has behind the batch"
    check(given is None or known in (None, given), "feature_axes", expected, repr(given))
    return given if given is not None else known or 1


@functools.lru_cache(maxsize=256)
def _known_axes(cell):
    """The same, or None for a cell whose call can't be read."""
    try:
        call = call_of(cell)
    except ValueError:
        return None
    if call.factory == "convlstm":
        return len(call.arguments["kernel"]) + 1
    held = jax.tree.leaves(list(call.arguments.values()), is_leaf=lambda a: isinstance(a, Cell))
    first = next((a for a in held if isinstance(a, Cell)), None)
    return 1 if first is None else _known_axes(first)


def cast(tree: Any, dtype: Any) -> Any:
    """The floating-point arrays of a tree, or their shapes, in that dtype; None for as they are."""

    def of_one(a):
        if dtype is None or not jnp.issubdtype(a.dtype, jnp.floating):
            return a
        struct = isinstance(a, jax.ShapeDtypeStruct)
        return jax.ShapeDtypeStruct(a.shape, dtype) if struct else a.astype(dtype)

    return jax.tree.map(of_one, tree)


def params_like(cell: Cell, x: Any) -> Params:
    """The shapes of the cell's params for inputs like x, one step, (*B, D)."""
    return _params_of(cell, *_hashable(x))


@functools.lru_cache(maxsize=256)
def _params_of(cell, structs, tree):
    return jax.eval_shape(cell.init, jax.random.key(0), jax.tree.unflatten(tree, structs))


def own_params(cell: Cell, params: Params, like: Params) -> Params:
    """Params as JAX arrays, in the dtypes that they have.

    Raises:
      ValueError: if they are not of the structure and shapes of `like`, those of the cell, or
        not floating point where those are.
    """
    shapes = lambda tree: jax.tree.map(lambda a: tuple(jnp.shape(a)), tree)
    structure: Any = jax.tree.structure
    fits = structure(params) == structure(like)
    check(fits, "params", f"those of {cell}, {shapes(like)}", shapes(params))

    def of_one(path, a, expected):
        entry = f"params {'/'.join(path_names(path))!r}"
        fits = jnp.shape(a) == expected.shape
        check(fits, entry, f"shape {expected.shape}, as {cell} has", jnp.shape(a))
        floating = jnp.issubdtype(expected.dtype, jnp.floating)
        return to_jax(a, entry) if floating else jnp.asarray(a)

    return jax.tree.map_with_path(of_one, params, like)


def path_names(path: Any) -> tuple[str, ...]:
    """The steps of a path in a tree; `"param"` for a leaf that is the whole tree."""
    name = functools.partial(jax.tree_util.keystr, simple=True)
    return tuple(name((step,)) for step in path) or ("param",)


def own_carry(cell: Cell, params: Params, x: Any, carry: Any) -> Carry:
    """A carry in the cell's own structure.

    Args:
      cell: the cell.
      params: its params.
      x: one step, (*B, D).
      carry: the arrays of the cell's carry in their order, in any structure; or one of its own
        type, in which there may be more of them, as an attention's mask.

    Raises:
      ValueError: if there are more or fewer arrays.
    """
    expected = _carry_of(cell, *_hashable((params, x)))
    if _is_own(carry, expected):
        return carry
    leaves, number = jax.tree.leaves(carry), len(jax.tree.leaves(expected))
    check(len(leaves) == number, "carry", f"{number} arrays, as {cell} has", len(leaves))
    return jax.tree.unflatten(jax.tree.structure(expected), leaves)


@functools.lru_cache(maxsize=256)
def _carry_of(cell, structs, tree):
    make = lambda given, key: cell.initial_carry(*given, key)
    return jax.eval_shape(make, jax.tree.unflatten(tree, structs), jax.random.key(0))


def _hashable(tree):
    """The shapes of a tree of arrays, and its structure."""
    leaves, structure = jax.tree.flatten(tree)
    return tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves), structure


def _is_own(carry, expected):
    """Whether it is of the NamedTuple that the cell's carry is, or of those in it."""
    if type(expected) is tuple:  # of a stack
        alike = type(carry) is tuple and len(carry) == len(expected)
        return alike and all(map(_is_own, carry, expected))
    return hasattr(expected, "_fields") and type(carry) is type(expected)


def alike(given: Any, carry: Any) -> Any:
    """The arrays of the carry in the structure of the one given."""
    return jax.tree.unflatten(jax.tree.structure(given), jax.tree.leaves(carry))


def bare(carry: Carry) -> Any:
    """The carry, or the array that it is if it holds a single one, as Flax's GRUCell has it."""
    leaves = jax.tree.leaves(carry)
    return leaves[0] if len(leaves) == 1 else carry


def time_axis(inputs: Any, feature_axes: int, time_major: bool) -> int:
    """Which axis of the inputs is time; a tree's first array tells.

    Raises:
      ValueError: if there are too few of them.
    """
    first = jax.tree.leaves(inputs)[0]
    batch = first.ndim - 1 - feature_axes
    expected = f"axes of batch, time and {feature_axes} of features"
    check(batch >= 0, "inputs", expected, describe(first))
    return 0 if time_major else batch


def step_of(inputs: Any, axis: int) -> Any:
    """The shapes of one step of inputs with time on that axis."""
    without = lambda a: a.shape[:axis] + a.shape[axis + 1 :]
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(without(a), a.dtype), inputs)


def run(
    cell: Cell,
    params: Params,
    inputs: Any,
    carry: Any,
    axis: int,
    *,
    lengths: Any,
    reverse: bool,
    keep_order: bool,
) -> tuple[Any, Any]:
    """`jaxlstm.scan` as Flax's RNNs have it.

    Args:
      cell: the cell.
      params: its params.
      inputs: with time on that axis.
      carry: as for `own_carry`.
      axis: of time.
      lengths: (*B,) integers, or None.
      reverse: runs each sequence from its own last step to its first.
      keep_order: whether the outputs of a reversed run stay at their own times.

    Returns:
      The carry after, in the structure of the one given, and the outputs.
    """
    xs = jax.tree.map(lambda a: jnp.moveaxis(a, axis, 0), inputs)
    start = own_carry(cell, params, step_of(xs, 0), carry)
    after, ys = scan(cell, params, xs, start, lengths=lengths, reverse=reverse)
    if reverse and not keep_order:
        lengths = None if lengths is None else jnp.asarray(lengths)
        batch = 0 if lengths is None else lengths.ndim
        ys = jax.tree.map(lambda a: flip_sequences(a, lengths, batch, True), ys)
    return alike(carry, after), jax.tree.map(lambda a: jnp.moveaxis(a, 0, axis), ys)
