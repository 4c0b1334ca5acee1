"""How an update reads z and u: whole or gate by gate, and whether only to add them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import Tracer
from jax.extend.core import Var

from jaxlstm.kernels.recurrence import Inputs, Update, accumulator

PARTS = ("split", "squeeze")  # what takes parts of its one operand


def dtype_of_gates(inputs: Inputs) -> Any:
    """The dtype of z and u."""
    return jnp.dtype(accumulator(jnp.result_type(inputs.x, inputs.weights.w_x)))


def only_the_sum(update: Update, inputs: Inputs) -> bool:
    """Whether `update` reads z and u only to add them, whole or gate by gate."""
    jaxpr = _jaxpr(update, inputs)
    z, u = jaxpr.invars[-2:]
    part = {z: ("z",), u: ("u",)}  # of which of the two, and how it came to be
    for equation in jaxpr.eqns:
        read = [part[v] for v in equation.invars if isinstance(v, Var) and v in part]
        if not read:
            continue
        name = equation.primitive.name
        if name in PARTS:
            took = (*read[0], name, str(equation.params))
            part |= {v: (*took, n) for n, v in enumerate(equation.outvars)}
        elif name != "add" or {of for of, *_ in read} != {"z", "u"} or len({*map(_how, read)}) > 1:
            return False
    return not any(isinstance(v, Var) and v in part for v in jaxpr.outvars)


def _how(part):
    return part[1:]


def gate_by_gate(update: Update, inputs: Inputs) -> bool:
    """Whether `update` does nothing with z (*B, G, H) but split it into its gates."""
    if inputs.weights.b.ndim != 2:
        return False
    jaxpr = _jaxpr(update, inputs)
    z = jaxpr.invars[-2]
    readers = [e for e in jaxpr.eqns if any(v is z for v in e.invars)]
    into_gates = lambda e: e.params["axis"] == 1 and set(e.params["sizes"]) == {1}
    split = all(e.primitive.name == "split" and into_gates(e) for e in readers)
    return split and not any(v is z for v in jaxpr.outvars)


def by_gates(zs: Array, b: Array) -> tuple[Array, Callable[[Array], Array]]:
    """The times of zs (T, B, G, H), and a function of one that gives z + b (B, G, H).

    For updates that split z at once. Two slices of one slice at a moving place make of the gates a
    loop that is not vectorised (JAX 0.10 and 0.12): one of G slices each does.
    """
    slices = lambda t, n: lax.dynamic_slice(zs, (t, 0, n, 0), (1, zs.shape[1], 1, zs.shape[3]))
    gate = lambda t, n: lax.squeeze(slices(t, n), (0, 2)) + b[n]
    return jnp.arange(len(zs)), lambda t: jnp.stack([gate(t, n) for n in range(len(b))], -2)


def closes_over_traced(update: Update, inputs: Inputs) -> bool:
    """Whether `update` reads a traced value beside its arguments."""
    return any(isinstance(value, Tracer) for value in _closed_jaxpr(update, inputs).consts)


def _jaxpr(update, inputs):
    return _closed_jaxpr(update, inputs).jaxpr


def _closed_jaxpr(update, inputs):
    weights, x, carry, *_ = inputs
    shape = (*x.shape[1:-1], *weights.b.shape)
    one = jax.ShapeDtypeStruct(shape, dtype_of_gates(inputs))
    return jax.make_jaxpr(update)(weights.theta, carry, one, one)
