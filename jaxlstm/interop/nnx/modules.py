"""Our cells in Flax NNX: a module that holds any of them, for `nnx.RNN`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlstm.base import Carry, Cell, Params, Persistent
from jaxlstm.checks import check, describe


class _Held:
    """A cell as a static attribute: shown by its call, the very same one in a deep copy."""

    def __init__(self, cell: Cell):
        self.cell = cell

    def __repr__(self) -> str:
        return repr(self.cell)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.cell == other.cell

    def __hash__(self) -> int:
        return hash(self.cell)

    def __deepcopy__(self, memo: Any) -> "_Held":
        return self


class RecurrentCell(nnx.RNNCellBase):
    """Any of our cells as a Flax NNX cell, for `nnx.RNN`, `nnx.Bidirectional` and `RNN` below.

    Its state is an `nnx.Param` for each array of the params, in a tree like theirs: of an `lstm`
    `weights.w_x`, `weights.w_h` and `weights.b`, of a `stack` `weights[0].w_x` and so on. A cell
    wrapped for training (`variational_dropout`, `zoneout`) and the bare one have the same state,
    which `nnx.update(bare, nnx.state(wrapped))` hands on.

    Args:
      cell: the cell.
      in_features: one step of one sequence, without batch axes: D, a shape (*S, C), or a tree of
        `jax.ShapeDtypeStruct` for a cell of several inputs; how many axes it has (of a tree its
        first array) is `num_feature_axes`.
      params: the params, kept as they are; by default `cell.init` draws them.
      dtype: of inputs and params when they are used; by default what they promote to. The carry
        is made for it, by default for the params' own: with bfloat16 an LSTM's c is float32.
      param_dtype: of the params drawn.
      rngs: its stream `params` draws the params; not needed where these are given.

    Raises:
      ValueError: if an argument is none of these, or the params are not of that cell.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop.nnx import RecurrentCell
      >>> cell = RecurrentCell(jl.lstm(64, peephole=True), 8, rngs=nnx.Rngs(0))
      >>> carry, ys = nnx.RNN(cell, return_carry=True)(jnp.ones((2, 10, 8)))
      >>> ys.shape, carry.c.shape, cell.weights.peephole.shape, cell.params.b.shape
      ((2, 10, 64), (2, 64), (3, 64), (4, 64))
    """

    def __init__(
        self,
        cell: Cell,
        in_features: Any,
        *,
        params: Params | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        check(isinstance(cell, Cell), "cell", "a Cell", repr(cell))
        self.held = _Held(cell)
        self.in_features = in_features
        self.dtype = dtype
        self.param_dtype = param_dtype
        draw = lambda key: cell.init(key, cast(_step_of(in_features), param_dtype))
        if params is None:
            known = isinstance(rngs, nnx.Rngs)
            check(known, "rngs", "nnx.Rngs, as there are no params", repr(rngs))
            params = draw(rngs.params())  # type: ignore[union-attr]
        _check_params(params, jax.eval_shape(draw, jax.random.key(0)), cell)
        self.weights = nnx.data(jax.tree.map(lambda a: nnx.Param(jnp.asarray(a)), params))

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.held.cell

    @property
    def params(self) -> Params:
        """The params, the very arrays that the state holds."""
        return jax.tree.map(lambda p: p[...], self.weights, is_leaf=_is_variable)

    def set_params(self, params: Params) -> None:
        """Puts params in the place of its own; ValueError if they are not of that cell and size."""
        _check_params(params, self.params, self.cell)
        put = lambda variable, a: variable.set_value(jnp.asarray(a))
        jax.tree.map(put, self.weights, params, is_leaf=_is_variable)

    @property
    def num_feature_axes(self) -> int:
        """How many axes a step has behind those of the batch."""
        return len(jax.tree.leaves(_step_of(self.in_features))[0].shape)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> Any:
        """The carry before the first step.

        Args:
          input_shape: of one step, (*B, *features); of several inputs that of the first.
          rngs: for cells that draw something for their carry: the stream `dropout` if there is
            one, else `carry`; or a stream.
          carry_init: draws the carry, `(key, shape, dtype) -> array`, but for what belongs to
            the run, as dropout masks; by default it is the cell's own.

        Returns:
          The array that the cell's carry is, if it is a single one, as Flax's GRUCell has it;
          else the cell's carry, of an LSTM the tuple (c, h).
        """
        draw = (lambda: None) if rngs is None else stream_of(rngs)
        features = _step_of(self.in_features)
        batch = input_shape[: len(input_shape) - self.num_feature_axes]
        shape = lambda a: input_shape if a is features else (*batch, *a.shape)  # pictures may vary
        x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(shape(a), a.dtype), features)
        params = cast(self.params, self.dtype)
        own = [a.dtype for a in jax.tree.leaves(params)] or [self.param_dtype]
        carry = self.cell.initial_carry(params, cast(x, jnp.result_type(*own)), draw())
        if carry_init is not None:
            lasting = lambda a: isinstance(a, Persistent)
            new = lambda a: a if lasting(a) else carry_init(draw(), a.shape, a.dtype)
            carry = jax.tree.map(new, carry, is_leaf=lasting)
        leaves = jax.tree.leaves(carry)
        return leaves[0] if len(leaves) == 1 else carry

    def __call__(self, carry: Any, inputs: Any) -> tuple[Any, Any]:
        """One step: the carry after it, in the structure of the one given, and the output.

        Args:
          carry: as `initialize_carry` gives it, or any tree of the same arrays in that order.
          inputs: (*B, *features) floating point; or the tree of them that the cell takes.
        """
        params, x = cast((self.params, inputs), self.dtype)
        new, y = self.cell.step(params, own_carry(self.cell, params, carry, x), x)
        return alike(carry, new), y


_is_variable = lambda a: isinstance(a, nnx.Variable)
_is_struct = lambda a: isinstance(a, jax.ShapeDtypeStruct)


def _step_of(in_features):
    """One step of one sequence, shapes and dtypes."""
    shape = (in_features,) if isinstance(in_features, int) else in_features
    if isinstance(shape, tuple) and shape and all(isinstance(n, int) for n in shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)
    leaves = jax.tree.leaves(in_features)
    expected = "a size, a shape or a tree of jax.ShapeDtypeStruct, without batch axes"
    known = bool(leaves) and all(map(_is_struct, leaves))
    check(known, "in_features", expected, describe(in_features))
    return in_features


def cast(tree: Any, dtype: Any) -> Any:
    """The floating-point arrays of a tree in that dtype, or as they are where it is None."""

    def of_one(a):
        if dtype is None or not jnp.issubdtype(a.dtype, jnp.floating):
            return a
        return jax.ShapeDtypeStruct(a.shape, dtype) if _is_struct(a) else a.astype(dtype)

    return jax.tree.map(of_one, tree)


def _check_params(params, like, cell):
    shapes = lambda tree: jax.tree.map(lambda a: tuple(jnp.shape(a)), tree)
    fits = jax.tree.structure(params) == jax.tree.structure(like)
    fits = fits and shapes(params) == shapes(like)
    check(fits, "params", f"those of {cell}, {shapes(like)}", shapes(params))


def stream_of(rngs: Any) -> nnx.RngStream:
    """The stream that carries are drawn of."""
    named = lambda: rngs.dropout if "dropout" in rngs else rngs.carry
    return named().fork() if isinstance(rngs, nnx.Rngs) else rngs  # a fork as in nnx.RNN


def own_carry(cell: Cell, params: Params, carry: Any, x: Any) -> Carry:
    """The carry in the cell's own structure, as far as it has the arrays for it."""
    arrays, tree = jax.tree.flatten((params, x))
    structs = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays)
    number, structure = _structure(cell, tree, structs)
    leaves = jax.tree.leaves(carry)
    return jax.tree.unflatten(structure, leaves) if len(leaves) == number else carry


@functools.lru_cache(maxsize=256)
def _structure(cell, tree, structs):
    """How many arrays the cell's carry has, and in what structure."""
    make = lambda given, key: cell.initial_carry(*given, key)
    carry = jax.eval_shape(make, jax.tree.unflatten(tree, structs), jax.random.key(0))
    return len(jax.tree.leaves(carry)), jax.tree.structure(carry)


def alike(given: Any, carry: Any) -> Any:
    """The carry in the structure of the one that was given."""
    return jax.tree.unflatten(jax.tree.structure(given), jax.tree.leaves(carry))
