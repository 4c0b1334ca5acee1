"""Our cells in Flax Linen: a module that holds any of them, for `nn.RNN`."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlstm.base import Array, Carry, Cell, Params
from jaxlstm.checks import check, describe
from jaxlstm.interop.flax_scan import (
    alike,
    bare,
    cast,
    feature_axes_of,
    own_carry,
    own_params,
    params_like,
    path_names,
)


def to_variables(params: Params) -> dict[str, Any]:
    """A cell's params as a `RecurrentCell` has them in its variables: dicts of dicts of arrays.

    Args:
      params: of any cell.

    Returns:
      A dict for each level of the tree, its entries named after fields and places: `["w_x"]`, or
      `["0"]["w_x"]` in the first layer of a stack; params of one array alone are `["param"]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import linen as interop
      >>> cell, xs = jl.stack(jl.lstm(8), jl.gru(4)), jnp.ones((2, 5, 3))
      >>> params = cell.init(jax.random.key(0), xs[:, 0])  # or from another library
      >>> sorted(interop.to_variables(params)["0"])
      ['b', 'w_h', 'w_x']
      >>> variables = {"params": {"cell": interop.to_variables(params)}}
      >>> interop.RNN(interop.RecurrentCell(cell)).apply(variables, xs).shape
      (2, 5, 4)
    """
    paths = jax.tree_util.tree_leaves_with_path(params)
    return unflatten_dict({path_names(path): leaf for path, leaf in paths})


def from_variables(cell: Cell, x: Any, variables: Mapping[str, Any]) -> Params:
    """A cell's params from the variables of a `RecurrentCell`: undoes `to_variables`.

    Args:
      cell: the cell.
      x: one step of its input, (*B, D), an array or a `jax.ShapeDtypeStruct`.
      variables: `variables["params"]["cell"]` of an `RNN`.

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
      >>> params = interop.from_variables(cell, xs[:, 0], variables["params"]["cell"])
      >>> params.w_x.shape
      (3, 4, 8)
    """
    check(isinstance(cell, Cell), "cell", "a Cell", describe(cell))
    mapping = isinstance(variables, Mapping)
    check(mapping, "params", "a mapping, as to_variables gives it", type(variables).__name__)
    return _read(cell, params_like(cell, _like(x)), variables)


class RecurrentCell(linen.RNNCellBase):
    """A cell as a Linen module: of `nn.RNN`, of `RNN` here, which is faster, or by itself.

    Its params are named as by `to_variables`, all drawn by `cell.init` with one key of the stream
    "params". Flax's cells compute with `dtype=bfloat16` in float32, as their carry is; here what
    is cast decides, and an LSTM's c alone stays float32.

    A cell that draws noise for its first carry (`variational_dropout`, `zoneout`) draws it from
    the stream "dropout", `apply(..., rngs={"dropout": key})`, where there is one: anew at each
    call. Without one it takes the `init_key` of `nn.RNN`, which is the same at every call unless
    somebody gives it; beside a stream it is of no account. (In `RNN` an `init_key` comes first,
    and a cell that needs a key and gets none raises.)

    Attributes:
      cell: the cell.
      feature_axes: how many axes an input has without time and batch: 1 for (D,), 3 for pictures;
        None for what the cell tells, or 1 if it is of a factory that is not of this package.
      dtype: what params and floating-point inputs are cast to; None for as they are.
      param_dtype: of the params.

    Raises:
      ValueError: if the cell is no Cell, or is known to take another number of axes.

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
    feature_axes: int | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check(isinstance(self.cell, Cell), "cell", "a Cell", describe(self.cell))
        feature_axes_of(self.cell, self.feature_axes)
        super().__post_init__()

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
        params, x = self.weights(x), cast(x, self.dtype)
        after, y = self.cell.step(params, own_carry(self.cell, params, x, carry), x)
        return alike(carry, after), y

    @linen.compact
    def weights(self, x: Any) -> Params:
        """The params, in `dtype`; at initialisation drawn for an input like x, (*B, D)."""
        x = _like(x, self.param_dtype)
        like = params_like(self.cell, x)
        names = to_variables(like)
        values = self._stored(names)
        if len(values) < len(names) and self.is_mutable_collection("params"):
            drawn = self.cell.init(_typed(self.make_rng("params")), x)
            values = to_variables(drawn) | values
        take = lambda name: self.param(name, lambda _, value: value, values.get(name))
        params = _read(self.cell, like, {name: take(name) for name in names})
        return cast(params, self.dtype)

    @linen.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> Carry:
        """The carry before the first step.

        Args:
          rng: for noise, where there is no stream "dropout".
          input_shape: of one step, (*B, D).

        Returns:
          The cell's initial carry, in dtypes as if the input were of `dtype` or `param_dtype`;
          where it holds one array alone, this array.

        Raises:
          ValueError: if the carry is a part of the params and the module is not bound to any.
        """
        x = jax.ShapeDtypeStruct(tuple(input_shape), self.param_dtype)
        bound = self.scope is not None
        rng = self.make_rng("dropout") if bound and self.has_rng("dropout") else rng
        like = params_like(self.cell, x)
        names = to_variables(like)
        stored = self._stored(names)
        if bound and len(stored) == len(names):
            params = _read(self.cell, like, stored)
        elif not _depends(lambda params: first_carry(self, params, x, rng), like):
            params = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        else:
            reason = f"a module bound to params, as the first carry of {self.cell} is among them"
            check(bound, "initialize_carry", reason, "an unbound one")
            params = self.cell.init(_typed(rng), x)
        return first_carry(self, cast(params, self.dtype), x, rng)

    @linen.nowrap
    def _stored(self, names):
        """The variables of those names, as far as there are any."""
        if self.scope is None:
            return {}
        return {n: self.get_variable("params", n) for n in names if self.has_variable("params", n)}

    @property
    def num_feature_axes(self) -> int:
        return feature_axes_of(self.cell, self.feature_axes)


def first_carry(module: RecurrentCell, params: Params, x: Any, key: Array | None) -> Carry:
    """The carry before the first step, of params and of an input like x; see `bare`."""
    x = _like(x, module.param_dtype if module.dtype is None else module.dtype)
    return bare(module.cell.initial_carry(params, x, _typed(key)))


def _read(cell, like, variables):
    """The params, of the shapes `like`, that are in variables."""
    given = flatten_dict(linen.meta.unbox(variables))
    paths = [path_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(like)]
    for path in paths:
        entry, others = f"params {'/'.join(path)!r}", ", ".join(map("/".join, given))
        check(path in given, entry, "an array", f"none among {others}")
    more = [repr("/".join(path)) for path in given if path not in paths]
    check(not more, "params", "no other entries", ", ".join(more))
    params = [given[path] for path in paths]
    return own_params(cell, jax.tree.unflatten(jax.tree.structure(like), params), like)


def _like(x, dtype=None):
    """The shapes of a pytree, in that dtype where it is floating point."""
    return jax.eval_shape(lambda x: cast(x, dtype), x)


def _typed(key):
    """A key of the new kind, as some cells need it, of one of either."""
    old = key is not None and not jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(key) if old else key


def _depends(function, params):
    """Whether what a function of the params gives depends on their values."""
    jaxpr = jax.make_jaxpr(function)(params).jaxpr
    read = [*jaxpr.outvars, *(v for equation in jaxpr.eqns for v in equation.invars)]
    return any(v is given for v in read for given in jaxpr.invars)
