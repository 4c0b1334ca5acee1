"""Flax Linen modules that hold a cell: any cell in a Flax model, and `nn.RNN` at its speed."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from flax.linen.recurrent import flip_sequences

from jaxlstm.base import Array, Carry, Cell, Params
from jaxlstm.checks import check
from jaxlstm.interop.arrays import Entries, named_leaves
from jaxlstm.sequence import scan


def flatten_params(params: Params) -> dict[str, Array]:
    """A cell's params as a `RecurrentCell` has them in its variables: arrays by name.

    Args:
      params: of any cell.

    Returns:
      Each array under its path, `"w_x"`, or `"0.w_x"` in the first layer of a stack.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import linen as interop
      >>> cell, xs = jl.lstm(8), jnp.ones((2, 5, 3))
      >>> params = cell.init(jax.random.key(0), xs[:, 0])  # or from another library
      >>> sorted(interop.flatten_params(params))
      ['b', 'w_h', 'w_x']
      >>> variables = {"params": {"cell": interop.flatten_params(params)}}
      >>> interop.RNN(interop.RecurrentCell(cell)).apply(variables, xs).shape
      (2, 5, 8)
    """
    return named_leaves(params)


def unflatten_params(cell: Cell, x: Any, arrays: Mapping[str, Any]) -> Params:
    """A cell's params from the variables of a `RecurrentCell`: undoes `flatten_params`.

    Args:
      cell: the cell.
      x: one step of its input, (*B, D), an array or a `jax.ShapeDtypeStruct`.
      arrays: by name, as `variables["params"]["cell"]` of an `RNN`.

    Returns:
      The params, in the dtypes that they have.

    Raises:
      ValueError: if an entry is missing, too many, or of another shape than the cell's.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import linen as interop
      >>> cell, xs = jl.lstm(8), jnp.ones((2, 5, 3))
      >>> variables = interop.RNN(interop.RecurrentCell(cell)).init(jax.random.key(0), xs)
      >>> params = interop.unflatten_params(cell, xs[:, 0], variables["params"]["cell"])
      >>> params.w_x.shape
      (3, 4, 8)
    """
    check(isinstance(cell, Cell), "cell", "a Cell", repr(cell))
    entries = Entries("params", linen.meta.unbox(arrays))
    expected = _shapes(cell, x)
    params = [entries.take(name, leaf.shape) for name, leaf in named_leaves(expected).items()]
    entries.finish()
    return jax.tree.unflatten(jax.tree.structure(expected), params)


class RecurrentCell(linen.RNNCellBase):
    """A cell as a Linen module: of `nn.RNN`, of `RNN` here, which is faster, or by itself.

    Its params are plain arrays named as by `flatten_params`, all drawn by `cell.init` with one
    key of the stream "params". Flax's cells compute with `dtype=bfloat16` in float32, as their
    carry is; here what is cast decides, and an LSTM's c alone stays float32.

    Attributes:
      cell: the cell.
      feature_axes: how many axes an input has without time and batch: 1 for (D,), 3 for pictures.
      dtype: what params and floating-point inputs are cast to; None for as they are.
      param_dtype: of the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from flax import linen as nn
      >>> from jaxlstm.interop.linen import RecurrentCell
      >>> model = nn.RNN(RecurrentCell(jl.lstm(8, peephole=True)), return_carry=True)
      >>> (c, h), ys = model.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]
      >>> c.shape, ys.shape
      ((2, 8), (2, 5, 8))
    """

    cell: Cell
    feature_axes: int = 1
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __call__(self, carry: Carry, x: Any) -> tuple[Carry, Any]:
        """One step.

        Args:
          carry: with the arrays of the cell's carry in their order, in any structure: (c, h).
          x: (*B, D), or a pytree if the cell takes one.

        Returns:
          The carry after, in the structure of the one before, and the output (*B, H).

        Raises:
          ValueError: if the carry has another number of arrays than the cell's.
        """
        params, x = self.weights(x), _cast(x, self.dtype)
        after, y = self.cell.step(params, _packed(self.cell, params, x, carry), x)
        return _unpacked(after, carry), y

    @linen.compact
    def weights(self, x: Any) -> Params:
        """The params, in `dtype`; at initialisation drawn for an input like x, (*B, D)."""
        x = _like(x, self.param_dtype)
        expected = _shapes(self.cell, x)
        values, make = flatten_params(expected), lambda _, like: jnp.zeros(like.shape, like.dtype)
        missing = not all(self.has_variable("params", name) for name in values)
        if missing and self.is_mutable_collection("params"):
            drawn = self.cell.init(_typed(self.make_rng("params")), x)
            values, make = flatten_params(drawn), lambda _, value: value
        params = [self.param(name, make, value) for name, value in values.items()]
        return _cast(jax.tree.unflatten(jax.tree.structure(expected), params), self.dtype)

    @linen.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> Carry:
        """The carry before the first step.

        Args:
          rng: for noise; `nn.RNN` gives the same key at every call but for an `init_key`.
          input_shape: of one step, (*B, D).

        Returns:
          The cell's initial carry, in dtypes as if the input were of `dtype` or `param_dtype`;
          where it holds one array alone, this array.

        Raises:
          ValueError: if the carry is a part of the params and the module is not bound to any.
        """
        x = jax.ShapeDtypeStruct(tuple(input_shape), self.param_dtype)
        expected = _shapes(self.cell, x)
        names = flatten_params(expected)
        if self.scope is not None and all(self.has_variable("params", n) for n in names):
            stored = (linen.meta.unbox(self.get_variable("params", n)) for n in names)
            params = jax.tree.unflatten(jax.tree.structure(expected), stored)
        elif not _depends(lambda params: _start(self, params, x, rng), expected):
            params = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), expected)
        else:
            reason = f"a module bound to params, as the first carry of {self.cell} is among them"
            check(self.scope is not None, "initialize_carry", reason, "an unbound one")
            params = self.cell.init(_typed(rng), x)
        return _start(self, _cast(params, self.dtype), x, rng)

    @property
    def num_feature_axes(self) -> int:
        return self.feature_axes


class RNN(linen.RNN):
    """`nn.RNN` of a `RecurrentCell`, its whole sequence by `jaxlstm.scan`.

    Attributes, arguments and variables are those of `nn.RNN`; `unroll` and `split_rngs` are of
    no account. It may be either of an `nn.Bidirectional`. What differs:

    - Outputs at and after a length are zero, a sequence of no steps keeps its initial carry, and
      what padding holds, NaN included, reaches no value and no gradient. (`nn.RNN` leaves
      outputs as they come, gives such a sequence the carry after all its padding, and its
      gradients are NaN where padding is.)
    - Noise for the carry is drawn from `init_key`, else from the stream "dropout".
    - Inputs may be a pytree if the cell takes one; its first array tells the batch axes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop.linen import RNN, RecurrentCell
      >>> model, xs = RNN(RecurrentCell(jl.gru(8))), jnp.ones((2, 5, 3))
      >>> variables = model.init(jax.random.key(0), xs)
      >>> ys = model.apply(variables, xs, seq_lengths=jnp.array([5, 0]))
      >>> ys.shape, bool(ys[1].any())
      ((2, 5, 8), False)
    """

    def __call__(
        self,
        inputs: Any,
        *,
        initial_carry: Carry | None = None,
        init_key: Array | None = None,
        seq_lengths: Any = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Runs the cell over sequences.

        Args:
          inputs: (*B, T, D), or (T, *B, D) if `time_major`.
          initial_carry: with the arrays of the cell's carry in their order, in any structure.
          init_key: for cells that draw noise for their first carry.
          seq_lengths: (*B,) integers in [0, T].
          return_carry: whether to return the carry after each sequence's last step too.
          time_major: whether time is the first axis.
          reverse: runs each sequence from its own last step to its first.
          keep_order: whether the outputs of a reversed run stay at their own times.

        Returns:
          The outputs, (*B, T, H) or (T, *B, H), or the carry and these.

        Raises:
          ValueError: if the cell is no `RecurrentCell`, or a field or argument does not fit.
        """
        given = lambda value, name: getattr(self, name) if value is None else value
        cell = self.cell
        ours, shared = isinstance(cell, RecurrentCell), self.variable_broadcast
        check(ours, "cell", "a RecurrentCell (others are for nn.RNN)", type(cell).__name__)
        check(not self.variable_axes, "variable_axes", "its default {}", self.variable_axes)
        check(shared == "params", "variable_broadcast", "its default 'params'", repr(shared))
        first = jax.tree.leaves(inputs)[0]
        batch = first.ndim - 1 - cell.feature_axes
        expected = f"axes of batch, time and {cell.feature_axes} of features"
        check(batch >= 0, "inputs", expected, f"shape {first.shape}")
        axis = 0 if given(time_major, "time_major") else batch
        xs = jax.tree.map(lambda a: jnp.moveaxis(a, axis, 0), inputs)
        step = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), xs)
        params = cell.weights(step)
        if initial_carry is None:
            drawing = init_key is None and (self.has_rng("dropout") or self.has_rng("params"))
            key = self.make_rng("dropout") if drawing else init_key
            initial_carry = _start(cell, params, step, key)
        xs, backward = _cast(xs, cell.dtype), bool(given(reverse, "reverse"))
        carry = _packed(cell.cell, params, step, initial_carry)
        carry, ys = scan(cell.cell, params, xs, carry, lengths=seq_lengths, reverse=backward)
        if backward and not given(keep_order, "keep_order"):
            lengths = None if seq_lengths is None else jnp.asarray(seq_lengths)
            ys = jax.tree.map(lambda a: flip_sequences(a, lengths, batch, True), ys)
        ys = jax.tree.map(lambda a: jnp.moveaxis(a, 0, axis), ys)
        returned = given(return_carry, "return_carry")
        return (_unpacked(carry, initial_carry), ys) if returned else ys


def _shapes(cell, x):
    """The shapes of the params for an input like x."""
    return jax.eval_shape(cell.init, jax.random.key(0), _like(x))


def _like(x, dtype=None):
    """The shapes of a pytree, in that dtype where it is floating point."""
    return jax.eval_shape(lambda x: _cast(x, dtype), x)


def _cast(tree, dtype):
    floating = lambda a: dtype is not None and jnp.issubdtype(a.dtype, jnp.floating)
    return jax.tree.map(lambda a: a.astype(dtype) if floating(a) else a, tree)


def _typed(key):
    """A key of the new kind, as some cells need it, of one of either."""
    old = key is not None and not jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(key) if old else key


def _start(module, params, x, key):
    """The carry before the first step; of one array alone, that array."""
    x = _like(x, module.param_dtype if module.dtype is None else module.dtype)
    carry = module.cell.initial_carry(params, x, _typed(key))
    leaves = jax.tree.leaves(carry)
    return leaves[0] if len(leaves) == 1 else carry


def _packed(cell, params, x, carry):
    """The arrays of a carry in the cell's own structure."""
    start = lambda key: cell.initial_carry(params, _like(x), key)
    expected = jax.eval_shape(start, jax.random.key(0))
    if hasattr(carry, "_fields") and type(carry) is type(expected):  # with a mask, maybe
        return carry
    tree, leaves = jax.tree.structure(expected), jax.tree.leaves(carry)
    expected = f"{tree.num_leaves} arrays, as {cell} has"
    check(len(leaves) == tree.num_leaves, "carry", expected, len(leaves))
    return tree.unflatten(leaves)


def _unpacked(carry, like):
    return jax.tree.structure(like).unflatten(jax.tree.leaves(carry))


def _depends(function, params):
    """Whether what a function of the params gives depends on their values."""
    jaxpr = jax.make_jaxpr(function)(params).jaxpr
    read = [*jaxpr.outvars, *(v for equation in jaxpr.eqns for v in equation.invars)]
    return any(v is given for v in read for given in jaxpr.invars)
