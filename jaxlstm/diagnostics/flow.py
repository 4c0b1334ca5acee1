"""How a loss's gradient reaches back in time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Carry, Cell, Layer, Params
from jaxlstm.checks import check, check_size, check_xs
from jaxlstm.diagnostics import taps
from jaxlstm.diagnostics.trace import last_carry


class GradientFlow(NamedTuple):
    """A loss and its derivatives by all that a network computed, under the names of `trace`."""

    loss: Array
    gates: dict[str, Array]  # (T, *B, H)
    candidates: dict[str, Array]  # (T, *B, H)
    states: dict[str, Array]  # (T, *B, H)
    norms: dict[str, Array]  # (T, *B)  of those by the states, over all but time and batch


def gradient_flow(
    loss: Callable[[Carry, Any], Array],
    cell: Cell | Layer,
    params: Params,
    xs: Any,
    carry: Carry | None = None,
    *,
    key: Array | None = None,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    axes: int = 1,
) -> GradientFlow:
    """The derivatives of a loss by every state and gate at every step.

        dL/ds_t   total: through h_t and the outputs, the layers above, and all later steps

    Each is the derivative by a perturbation, zero in value, that is added to s_t where a step
    makes it, before anything reads it: that by c_t goes through h_t too. With a loss that is the
    mean of a batch each sequence's derivatives have its share of it.

    Args:
      loss: `(carry, ys) -> scalar` of what `jaxlstm.scan` (or a Layer's `apply`) gives.
      cell: a Cell, or a Layer, as for `trace`.
      params: its params.
      xs: (T, *B, D), time first; or a pytree of such arrays, if the cell takes one.
      carry: before the first step; by default the initial one.
      key: a PRNG key for an initial carry that needs one.
      lengths: (*B,) integers in [0, T].
      mask: (T, *B) booleans; False skips a step.
      resets: (T, *B) booleans; True puts the initial carry in before that step.
      axes: how many axes an input has without time and batch: 1 for (D,), 3 for pictures.

    Returns:
      A `GradientFlow`; zero where a step is not valid.

    Raises:
      ValueError: if the loss is not a scalar, or as `trace` does.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.diagnostics import gradient_flow
      >>> cell, xs = jl.lstm(8), jnp.ones((20, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> flow = gradient_flow(lambda carry, ys: ys[-1].sum(), cell, params, xs)
      >>> flow.norms["h"].shape, bool((flow.norms["c"][-1] > flow.norms["c"][0]).all())
      ((20, 2), True)

    References:
      Hochreiter, Bengio, Frasconi and Schmidhuber 2001, Gradient flow in recurrent nets; Pascanu,
      Mikolov and Bengio 2013, arXiv:1211.5063, eq. 3 to 5.
    """
    before = batch_axes(xs, axes)
    options = dict(key=key, lengths=lengths, mask=mask, resets=resets)
    follow = lambda start: taps.follow(cell, params, xs, start, options)
    shapes, _ = jax.eval_shape(lambda: follow(carry))
    tree: Any
    seen, tree = jax.tree.flatten(shapes, is_leaf=taps.is_seen)
    carries = [None] * len(seen) if carry is None else tree.flatten_up_to(carry)
    of = lambda moves: tree.unflatten(map(taps.Start, carries, moves))

    def run(moves):
        ends, ys = follow(of(moves))
        value = loss(last_carry(ends), ys)
        check(jnp.shape(value) == (), "loss", "a scalar", f"shape {jnp.shape(value)}")
        return value

    value, gradients = jax.value_and_grad(run)([_zeros(s.values) for s in seen])
    flow = GradientFlow(value, {}, {}, {}, {})
    places = [place for place, _ in taps.by_name(shapes)]
    for place, values in zip(places, gradients, strict=True):
        for kind, arrays in values._asdict().items():
            getattr(flow, kind).update({place + name: a for name, a in arrays.items()})
    for name, a in flow.states.items():
        flow.norms[name] = jnp.linalg.norm(a.reshape(*a.shape[: 1 + before], -1), axis=-1)
    return flow


def _zeros(values):
    """Zeros like the floating-point ones of a cell's values."""
    floats = lambda arrays: {
        name: jnp.zeros(a.shape, a.dtype)
        for name, a in arrays.items()
        if jnp.issubdtype(a.dtype, jnp.floating)
    }
    return taps.Values(*map(floats, values))


def batch_axes(xs: Any, axes: int) -> int:
    """How many batch axes sequences (T, *B, ...) have whose inputs have that many axes."""
    rank = len(check_xs(xs)) - 1
    check_size(axes, "axes")
    check(axes <= rank, "axes", f"at most the {rank} of xs without time", axes)
    return rank - axes
