"""The types that everything else is made of: `Cell`, `Layer` and the `cell` decorator."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeAlias, overload

import jax
import jax.numpy as jnp
from jax import export, lax

Array: TypeAlias = jax.Array
Params: TypeAlias = Any
Carry: TypeAlias = Any
Parts: TypeAlias = tuple[Any, ...]  # what a factory returns: init, initial_carry, step, unroll
P = ParamSpec("P")


class Unroll(Protocol):
    """A whole sequence at once; equal to `jax.lax.scan` of the cell's `step`.

    `valid` and `resets` are (T, *B) booleans or None: where `resets` is True,
    `initial` replaces the carry before the step; where `valid` is False, the step
    leaves the carry as it is and its output is of no account. T may be a symbolic size.
    Returns None where no implementation can serve and none was named.
    """

    def __call__(
        self,
        params: Params,
        carry: Carry,
        xs: Any,
        *,
        valid: Array | None,
        resets: Array | None,
        initial: Carry | None,
        implementation: str | None,
    ) -> tuple[Carry, Any] | None: ...

    def explain(self, params: Params, xs: Any) -> dict[str, Any]:
        """Maps each implementation to None, or to the reason why it can't serve."""
        ...


def is_symbolic(size: Any) -> bool:
    """Whether a size stands for any, as in a program that `jax.export` makes."""
    return not isinstance(size, int)


def symbolic_steps(xs: Any, implementation: str | None = None) -> str | None:
    """Why an `Unroll` that needs a known number of steps can't serve `xs`, or None if it can.

    Raises:
      ValueError: if it can't, and an implementation was named.
    """
    if not is_symbolic(xs.shape[0]):
        return None
    reason = f"xs has a symbolic number of steps, {xs.shape[0]}"
    if implementation is not None:
        raise ValueError(f"implementation {implementation!r} can't serve: {reason}")
    return reason


class Cell(NamedTuple):
    """A recurrent cell: pure functions of one time step.

    Attributes:
      init: `(key, x) -> params`; `x` is one step, (*B, D), an array or a
        `jax.ShapeDtypeStruct`.
      initial_carry: `(params, x, key=None) -> carry`; `x` as for `init`.
      step: `(params, carry, x) -> (carry, y)`; the cell's definition.
      unroll: the same for a whole sequence, faster, or None.
      name: the call that made the cell, `"lstm(64, peephole=True)"`.
    """

    init: Callable[..., Params]
    initial_carry: Callable[..., Carry]
    step: Callable[..., tuple[Carry, Any]]
    unroll: Unroll | None = None
    name: str = "cell"

    def __repr__(self) -> str:
        return self.name

    def __deepcopy__(self, memo: Any) -> "Cell":
        return self


class Layer(NamedTuple):
    """A map of whole sequences that is not causal, as a bidirectional network.

    Attributes:
      init: `(key, x) -> params`; `x` is one step, as for `Cell.init`.
      apply: `(params, xs, carry=None, *, key=None, lengths=None, mask=None, resets=None,
        implementation=None, checkpoint=None) -> (carry, ys)`; `xs` is (T, *B, D).
      shorten: `lengths -> lengths` of the outputs, or None where they are those of the inputs.
      name: the call that made the layer.
    """

    init: Callable[..., Params]
    apply: Callable[..., tuple[Carry, Any]]
    shorten: Callable[[Any], Any] | None = None
    name: str = "layer"

    def __repr__(self) -> str:
        return self.name

    def __deepcopy__(self, memo: Any) -> "Layer":
        return self


@jax.tree_util.register_pytree_node_class
class Persistent:
    """A part of a carry that belongs to the run and not to the sequence.

    A reset leaves it alone: dropout masks, for one, must be the same before and after it.

    Attributes:
      value: any pytree of arrays with the batch axes first, as all of a carry.
    """

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        return f"Persistent({self.value!r})"

    def tree_flatten(self):
        return (self.value,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def register_for_export(types: Iterable[Any]) -> None:
    """Lets `jax.export` serialise programs that take or give NamedTuples of these types."""
    for made in types:
        with contextlib.suppress(ValueError):  # known already, where a module is reloaded
            name = f"jaxlstm.{made.__name__}"
            export.register_namedtuple_serialization(made, serialized_name=name)
    with contextlib.suppress(ValueError):
        export.register_pytree_node_serialization(
            Persistent,
            serialized_name="jaxlstm.Persistent",
            serialize_auxdata=lambda _: b"",
            deserialize_auxdata=lambda _: None,
        )


def select(condition: Array | None, new: Any, old: Any) -> Any:
    """`new` where the condition holds, else `old`, leaf by leaf.

    The condition's axes are the leaves' first ones; None holds everywhere. A leaf that is
    handed on as it is (dropout masks, an attention's memory) costs nothing.
    """
    if condition is None:
        return new

    def choose(n, o):
        if n is o:
            return n
        extra = max(n.ndim, o.ndim) - condition.ndim
        return jnp.where(condition.reshape(condition.shape + (1,) * extra), n, o)

    return jax.tree.map(choose, new, old)


def restart(resets: Array | None, initial: Carry, carry: Carry) -> Carry:
    """The carry that a step sees: `initial` where there is a reset, except what is Persistent."""
    if resets is None:
        return carry
    is_leaf = lambda n: isinstance(n, Persistent)
    keep = lambda c, i: c if isinstance(c, Persistent) else i
    return select(resets, jax.tree.map(keep, carry, initial, is_leaf=is_leaf), carry)


def vary_alike(tree: Any) -> Any:
    """Under `shard_map`: lets every leaf vary over all the mesh axes that any leaf varies over.

    A carry must keep its type through a scan; and the weights' gradients are then summed over
    devices once, not at each step.
    """
    over = lambda leaf: jax.typeof(leaf).manual_axis_type.varying
    axes = frozenset().union(*map(over, jax.tree.leaves(tree)))
    more = lambda leaf: tuple(axes - over(leaf))
    cast = lambda leaf: lax.pcast(leaf, more(leaf), to="varying") if more(leaf) else leaf
    return jax.tree.map(cast, tree)


def _typed(value: Any) -> Any:
    """A key that tells 1 from 1.0 and True, in tuples too."""
    return tuple(map(_typed, value)) if type(value) is tuple else (type(value), value)


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's; all else as it is."""
    return value.item() if type(value).__module__ == "numpy" and value.shape == () else value


def _call_name(name: str, signature: inspect.Signature, arguments: dict[str, Any]) -> str:
    words = []
    for key, value in arguments.items():
        parameter = signature.parameters[key]
        if parameter.kind is parameter.VAR_POSITIONAL:
            words += [repr(v) for v in value]
        elif parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            words.append(repr(value))
        elif value != parameter.default:
            words.append(f"{key}={value!r}")
    return f"{name}({', '.join(words)})"


@overload
def cell(factory: Callable[P, Layer]) -> Callable[P, Layer]: ...  # type: ignore[overload-overlap]


@overload
def cell(factory: Callable[P, Parts]) -> Callable[P, Cell]: ...


def cell(factory: Callable[P, Any]) -> Callable[P, Any]:
    """Makes a factory of cells of a function that returns a cell's parts.

    The factory remembers: the same arguments give the same `Cell`, so that `jit`,
    which tells functions apart by identity, never traces it again.

    Args:
      factory: a function that returns `(init, initial_carry, step)`, or these and
        an `Unroll`; or a `Cell` or `Layer`, of which only the name is replaced. Its
        arguments must be hashable.

    Returns:
      A function with the same arguments that returns a `Cell` (or `Layer`), named
      after the call.

    Raises:
      TypeError: if an argument of the factory can't be hashed.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> @jl.cell
      ... def leaky_sum(decay: float = 0.9):
      ...   def init(key, x):
      ...     return ()
      ...   def initial_carry(params, x, key=None):
      ...     return jnp.zeros(x.shape, x.dtype)
      ...   def step(params, carry, x):
      ...     carry = decay * carry + x
      ...     return carry, carry
      ...   return init, initial_carry, step
      >>> leaky_sum(0.5)
      leaky_sum(decay=0.5)
      >>> leaky_sum(0.5) is leaky_sum(decay=0.5)
      True
      >>> jl.scan(leaky_sum(0.5), (), jnp.ones((3, 1)))[0]
      Array([1.75], dtype=float32)
    """
    signature = inspect.signature(factory)
    made: dict[Any, Cell | Layer] = {}

    @functools.wraps(factory)
    def make(*args, **kwargs):
        plain = {name: _plain(value) for name, value in kwargs.items()}
        bound = signature.bind(*map(_plain, args), **plain)
        bound.apply_defaults()
        key = tuple((name, _typed(value)) for name, value in bound.arguments.items())
        try:
            known = made.get(key)
        except TypeError as error:
            raise TypeError(
                f"{factory.__name__}: arguments must be hashable, so that equal calls give the "
                f"same cell; got {dict(bound.arguments)}"
            ) from error
        if known is None:
            parts = factory(*bound.args, **bound.kwargs)
            known = parts if isinstance(parts, Cell | Layer) else Cell(*parts)
            known = known._replace(name=_call_name(factory.__name__, signature, bound.arguments))
            made[key] = known
        return known

    return make
