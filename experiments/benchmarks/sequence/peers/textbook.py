"""The recurrence as one would write it down: a step in `lax.scan`, a product of all gates."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import sigmoid, standardize

from experiments.benchmarks.sequence.cases import Case, Given
from experiments.benchmarks.sequence.program import Program, jax_program, jax_step, transposed


def lstm_step(weights, carry, x):
    c, h = carry
    i, f, g, o = jnp.split(x @ weights["x"] + h @ weights["h"] + weights["b"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    return c, sigmoid(o) * jnp.tanh(c)


def peephole_step(weights, carry, x):
    c, h = carry
    p_i, p_f, p_o = weights["peephole"]
    i, f, g, o = jnp.split(x @ weights["x"] + h @ weights["h"] + weights["b"], 4, -1)
    c = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * jnp.tanh(g)
    return c, sigmoid(o + p_o * c) * jnp.tanh(c)


def layer_norm_step(weights, carry, x):
    c, h = carry
    gain_x, gain_h, gain_c, b_c = weights["norm"]
    norm = lambda a: standardize(a, epsilon=1e-5)
    z = norm(x @ weights["x"]) * gain_x + norm(h @ weights["h"]) * gain_h + weights["b"]
    i, f, g, o = jnp.split(z, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    return c, sigmoid(o) * jnp.tanh(norm(c) * gain_c + b_c)


def gru_step(weights, carry, x):
    (h,) = carry
    x_r, x_z, x_n = jnp.split(x @ weights["x"] + weights["b"], 3, -1)
    h_r, h_z, h_n = jnp.split(h @ weights["h"], 3, -1)
    n = jnp.tanh(x_n + sigmoid(x_r + h_r) * (h_n + weights["b_n"]))
    z = sigmoid(x_z + h_z)
    return ((1 - z) * n + z * h,)


STEPS = {"gru": gru_step, "peephole": peephole_step, "layer_norm": layer_norm_step}


def _write(params):
    """Gates side by side."""
    flat = lambda a: a.reshape(*a.shape[:-2], -1)
    w = {"x": flat(params.w_x), "h": flat(params.w_h), "b": flat(params.b)}
    if hasattr(params, "b_n"):
        return w | {"b_n": params.b_n}
    if params.norm is not None:
        w["norm"] = (flat(params.norm.x), flat(params.norm.h), params.norm.c, params.norm.b_c)
    return w if params.peephole is None else w | {"peephole": params.peephole}


def build(case: Case, given: Given, variant: str) -> Program:
    step, weights = STEPS.get(case.row, lstm_step), _write(given.params)
    if case.row == "step":
        return jax_step(step, weights, given)

    def function(weights, xs, lengths):
        zeros = jnp.zeros((xs.shape[1], weights["h"].shape[0]), xs.dtype)

        def body(carry, s):
            t, x = s
            new = step(weights, carry, x)
            if lengths is None:
                return new, new[-1]
            valid = (t < lengths)[:, None]
            carry = jax.tree.map(lambda a, b: jnp.where(valid, a, b), new, carry)
            return carry, jnp.where(valid, new[-1], 0)

        start = (zeros,) if case.row == "gru" else (zeros, zeros)
        return lax.scan(body, start, (jnp.arange(len(xs)), xs))[1]

    return jax_program(case, given, function, weights, transposed(_write, given.params))
