"""Flax's NNX cells: steps and every gradient in float64, with weights that interop.nnx takes in."""

import jax.numpy as jnp
import pytest
from flax import nnx

from jaxlstm.interop.nnx import from_nnx
from tests.parity.agreement import agree_with_steps

B, D, H = 3, 4, 5
KINDS = {
    "LSTMCell": {},
    "OptimizedLSTMCell": {},
    "GRUCell": {},
    "SimpleCell": {},
    "SimpleCell relu": {"activation_fn": nnx.relu},
}


@pytest.mark.parametrize("kind", KINDS)
def test_nnx(kind):
    name, *options = kind.split()
    rngs = nnx.Rngs(0)
    dtypes = dict(dtype=jnp.float64, param_dtype=jnp.float64)
    module = getattr(nnx, name)(D, H, **dtypes, rngs=rngs, **KINDS[kind])
    carry = module.initialize_carry((B, D), rngs)
    definition, state = nnx.split(module)

    def merged(weights):
        nnx.replace_by_pure_dict(state, weights)
        return nnx.merge(definition, state)

    step = lambda weights, carry, x: merged(weights)(carry, x)
    convert = lambda weights: from_nnx(merged(weights))[1]
    weights, x = nnx.to_pure_dict(state), jnp.zeros((B, D))
    labels = dict(oracle=f"Flax nnx.{name}", options=", ".join(options))
    agree_with_steps(from_nnx(module)[0], convert, step, weights, carry, x, **labels)
