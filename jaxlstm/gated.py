"""The gated recurrence, as families of cells give it and are given it back.

Nearly every gated cell is an input part that does not need the carry, one recurrent matrix
product a step, and an elementwise update:

    z_t = x_t W + b                     all t at once
    u_t = h_{t-1} U                     step by step
    carry_t = update(theta, carry_{t-1}, z_t, u_t), its h times P if there is a projection

A family of cells gives `update` and a `split` of its params into `Weights`; it gets its step,
its `Unroll`, every implementation in `jaxlstm.kernels`, and the differentiation rule of
`jaxlstm.sweep`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm import kernels
from jaxlstm.base import Array, Carry, Params
from jaxlstm.checks import check, check_features, check_shape, describe
from jaxlstm.kernels.recurrence import Inputs, Update, Weights, accumulator, advance, project
from jaxlstm.sweep import sweep


def gated_step(
    update: Update, weights: Weights, carry: Carry, x: Array, mask: Array | None = None
) -> tuple[Carry, Array]:
    """One step of the recurrence: its definition.

    Args:
      update: `(theta, carry, z, u) -> carry`; z and u are (*B, *G, H).
      weights: W (D, *G, H), U (R, *G, H), b (*G, H), theta, and P (H, R) or None.
      carry: a NamedTuple with a field h, (*B, R).
      x: (*B, D).
      mask: (*B, R) multiplies h in the recurrent product, for `variational_dropout`.

    Returns:
      The carry after the step, in the dtypes of the carry before; and its h.

    Raises:
      ValueError: if x or the carry does not fit the weights.
    """
    _check(weights, carry, x, "x")
    z = project(x, weights.w_x) + weights.b
    h = carry.h if mask is None else carry.h * mask
    carry = advance(update, weights, carry, z, project(h, weights.w_h))
    return carry, carry.h


def state_dtypes(params: Params, x: Any) -> tuple[Any, Any]:
    """The dtypes of h and of a cell state: that of params and x together, and at least float32."""
    dtype = jnp.result_type(x.dtype, *(a.dtype for a in jax.tree.leaves(params)))
    return dtype, accumulator(dtype)


def _check(weights, carry, x, argument):
    check_features(x, weights.w_x.shape[0], argument, "params.w_x")
    check(
        hasattr(carry, "h"),
        "carry",
        "a NamedTuple with a field h, one of this cell",
        describe(carry),
    )
    hidden = weights.w_h.shape[0]
    batch = x.shape[1:-1] if argument == "xs" else x.shape[:-1]
    check_shape(carry.h, (*batch, hidden), "carry.h", f"as {argument} and params.w_h have it")
    for name, state in carry._asdict().items():
        if name != "h" and state is not None:
            fits = state.shape[: len(batch)] == batch and state.shape[-1] == weights.b.shape[-1]
            expected = f"batch axes {batch} and a last one of {weights.b.shape[-1]}"
            check(fits, f"carry.{name}", expected, describe(state))


class GatedUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` of a gated recurrence."""

    update: Update
    split: Callable[[Params], Weights]

    def __call__(self, params, carry, xs, *, valid, resets, initial, implementation):
        weights = self.split(params)
        _check(weights, carry, xs, "xs")
        batch = xs.shape[1:-1]
        n = len(batch)
        one_axis = (math.prod(batch),) if n else ()  # none of a lone sequence
        steps = lambda a: a.reshape(a.shape[0], *one_axis, *a.shape[1 + n :])
        flat = lambda c: jax.tree.map(lambda a: a.reshape(*one_axis, *a.shape[n:]), c)

        def flags(a):
            if a is None:
                return None
            a = a.reshape(a.shape + (1,) * (1 + n - a.ndim))
            return steps(jnp.broadcast_to(a, (a.shape[0], *batch)))

        inputs = Inputs(weights, steps(xs), flat(carry), flat(initial), flags(valid), flags(resets))
        name = kernels.choose(implementation, self.update, inputs)
        if name is None:
            return None
        last, ys = sweep(self.update, name, inputs)
        if not n:
            return last, ys
        last = jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), last)
        return last, ys.reshape(ys.shape[0], *batch, *ys.shape[2:])

    def explain(self, params, xs):
        inputs = Inputs(self.split(params), xs, None, None, None, None)
        return kernels.answers(self.update, inputs)
