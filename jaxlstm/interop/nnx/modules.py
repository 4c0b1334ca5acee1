"""Our cells in Flax NNX: a module that holds any of them, for `nnx.RNN`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxlstm.base import Cell, Params, Persistent
from jaxlstm.checks import check, describe
from jaxlstm.interop.flax_scan import alike, bare, cast, own_carry, own_params, params_like


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
        check(isinstance(cell, Cell), "cell", "a Cell", describe(cell))
        self.held = _Held(cell)
        self.in_features = in_features
        self.dtype = dtype
        self.param_dtype = param_dtype
        x = cast(_step_of(in_features), param_dtype)
        if params is None:
            known = isinstance(rngs, nnx.Rngs)
            check(known, "rngs", "nnx.Rngs, as there are no params", repr(rngs))
            params = cell.init(rngs.params(), x)  # type: ignore[union-attr]
        params = own_params(cell, params, params_like(cell, x))
        self.weights = nnx.data(jax.tree.map(nnx.Param, params))

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
        params = own_params(self.cell, params, self.params)
        put = lambda variable, a: variable.set_value(a)
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
        return bare(carry)

    def __call__(self, carry: Any, inputs: Any) -> tuple[Any, Any]:
        """One step: the carry after it, in the structure of the one given, and the output.

        Args:
          carry: as `initialize_carry` gives it, or any tree of the same arrays in that order.
          inputs: (*B, *features) floating point; or the tree of them that the cell takes.

        Raises:
          ValueError: if the carry has another number of arrays than the cell's.
        """
        params, x = cast((self.params, inputs), self.dtype)
        new, y = self.cell.step(params, own_carry(self.cell, params, x, carry), x)
        return alike(carry, new), y


_is_variable = lambda a: isinstance(a, nnx.Variable)


def _step_of(in_features):
    """One step of one sequence, shapes and dtypes."""
    size = lambda n: isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0
    shape = (in_features,) if size(in_features) else in_features
    if isinstance(shape, tuple) and shape and all(map(size, shape)):
        return jax.ShapeDtypeStruct(tuple(map(int, shape)), jnp.float32)
    leaves = jax.tree.leaves(in_features)
    expected = "a size, a shape or a tree of jax.ShapeDtypeStruct, without batch axes"
    known = bool(leaves) and all(isinstance(a, jax.ShapeDtypeStruct) for a in leaves)
    check(known, "in_features", expected, describe(in_features))
    return in_features


def stream_of(rngs: Any) -> nnx.RngStream:
    """The stream that carries are drawn of."""
    named = lambda: rngs.dropout if "dropout" in rngs else rngs.carry
    return named().fork() if isinstance(rngs, nnx.Rngs) else rngs  # a fork as in nnx.RNN
