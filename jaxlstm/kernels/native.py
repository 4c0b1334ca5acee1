"""The gated recurrence of the LSTM and the GRU in C++, where jaxlstm-native is installed.

The sweeps of `jaxlstm.kernels.blocked`, on the CPU and in float32. The gates are kept for the
gradient where they are not too many, and else computed again. The derivative of the backward
sweep, which second order needs, is that of the blocked one.
"""

import functools
import importlib.util
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxlstm.base import is_symbolic, vary_alike
from jaxlstm.kernels import blocked
from jaxlstm.kernels.recurrence import (
    Inputs,
    Kept,
    Known,
    Update,
    Weights,
    on_one_device,
    with_derivative,
)

RESIDUAL = 0  # an array: the gates (T, B, 4, H), or none of them (0, B, 4, H)
KEPT = 64 * 2**20  # bytes of gates, at most, that are kept
PACKAGE = "jaxlstm_native"


def supports(update: Update, inputs: Inputs) -> str | None:
    """An LSTM or GRU in float32 on one CPU device, without a projection or resets."""
    weights, x, *_ = inputs
    if importlib.util.find_spec(PACKAGE) is None:
        return "the package jaxlstm-native is not installed"
    if not isinstance(update, Known) or update.name not in _CELLS:
        return f"only {' and '.join(_CELLS)} are built in, of them no clipping"
    if getattr(weights.theta, "norm", None) is not None or weights.projection is not None:
        return "layer normalisation and projections are not built in"
    if inputs.resets is not None:
        return "resets are not built in"
    if any(map(is_symbolic, x.shape)):
        return "xs has a symbolic size"
    dtypes = {str(a.dtype) for a in jax.tree.leaves((weights, x, inputs.carry))}
    if dtypes != {"float32"}:
        return f"it computes in float32, not {', '.join(sorted(dtypes))}"
    if jax.default_backend() != "cpu":
        return f"it is for the CPU, not {jax.default_backend()}"
    if not on_one_device() and not isinstance(x, jax.ShapeDtypeStruct):
        return "with several devices it is only for the inside of shard_map, as XLA can't split it"
    return None


def forward(update: Known, keep: bool, inputs: Inputs) -> tuple[Any, Any]:
    """The last carry, and h after every step, or with `keep` a `Kept`."""
    time, batch, _ = inputs.x.shape
    hidden = inputs.weights.b.shape[-1]
    arrays, carry = _arrays(update, inputs), inputs.carry
    steps, last = (time, batch, hidden), (batch, hidden)
    if not keep:
        shapes = [*[last] * (len(carry) - 1), steps]
        *states, hs = _call(f"{update.name}_forward", shapes, *arrays)
        return type(carry)(*states, hs[-1]), hs
    few = 16 * math.prod(steps) <= KEPT
    shapes = [*[steps] * len(carry), (time if few else 0, batch, 4, hidden)]
    *states, gates = _call(f"{update.name}_forward_keep", shapes, *arrays)
    carries = type(carry)(*states)
    return jax.tree.map(lambda a: a[-1], carries), Kept(carries, gates)


def backward(
    update: Known, keep: bool, inputs: Inputs, kept: Kept, wanted: Inputs, g_last: Any, g_ys: Any
) -> Inputs:
    """As `jaxlstm.kernels.blocked.backward`."""

    def again(inputs, kept, g_last, g_ys):
        every, kept = inputs._replace(valid=None), kept._replace(residual=None)
        return blocked.backward(update, keep, inputs, kept, every, g_last, g_ys)

    fast = functools.partial(_backward, update, keep)
    full = with_derivative(fast, again)(inputs, kept, g_last, g_ys)
    of = lambda w, g: None if w is None else g
    return jax.tree.map(of, wanted, full, is_leaf=lambda a: a is None)


def _backward(update, keep, inputs, kept, g_last, g_ys):
    weights, x, carry, *_ = inputs
    x, w_x, w_h, b, *rest = _arrays(update, inputs)
    states, g_states = list(kept.carries), list(g_ys) if keep else [g_ys]
    if update.name == "lstm":  # an LSTM, of whose c the steps may have no cotangent
        none = jnp.zeros((0, *carry.h.shape), x.dtype)
        g_states = [g_states[-1], g_states[0] if keep else none]
    lean = not len(kept.residual)
    if lean:
        given = [x, w_x, w_h, b, *rest, *states]
    elif update.name == "lstm":
        given = [x, w_x, w_h, *rest, *states, kept.residual]
    else:
        given = [x, w_x, w_h, *rest[1:], *states, kept.residual]  # without b_n
    given += [*g_states, *g_last]
    shapes = [x.shape, w_x.shape, w_h.shape, b.shape, rest[0].shape]
    shapes += [a.shape for a in carry]
    name = f"{update.name}_backward" + "_lean" * lean
    g_x, g_w_x, g_w_h, g_b, g_rest, *g_carry = _call(name, shapes, *given)
    if update.name == "lstm":
        g_rest = weights.theta._replace(peephole=None if not len(g_rest) else g_rest)
    g_weights = Weights(g_w_x, g_w_h, g_b, g_rest)
    return Inputs(g_weights, g_x, type(carry)(*g_carry), None, None, None)


def _lstm(weights, carry):
    peephole = weights.theta.peephole
    hidden = weights.b.shape[-1]
    none = jnp.zeros((0, hidden), weights.b.dtype)
    return [none if peephole is None else peephole, carry.c, carry.h]


def _gru(weights, carry):
    return [weights.theta, carry.h]


_CELLS = {"lstm": _lstm, "gru": _gru}


def _arrays(update, inputs):
    """What all sweeps take first: x, w_x, w_h, b; peephole, c, h or b_n, h; valid."""
    weights, x, carry, _, valid, _ = inputs
    valid = jnp.zeros((0, x.shape[1]), bool) if valid is None else valid
    own = _CELLS[update.name](weights, carry)
    return [x, weights.w_x, weights.w_h, weights.b, *own, valid]


def _call(name, shapes, *arrays):
    """One of the package's kernels; a mapped axis calls it once for each."""
    importlib.import_module(PACKAGE).register()
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    call = jax.ffi.ffi_call(f"jaxlstm_{name}", results, vmap_method="sequential")
    arrays = vary_alike(arrays)  # under shard_map; the results forget over what they vary
    return vary_alike((call(*arrays), arrays[0]))[0]
