"""Flax's Linen cells."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen

from jaxlstm.interop.linen import from_linen
from tests.parity.agreement import agree_with_steps

B, D, H = 3, 4, 5


def run(module, x, **labels):
    key = jax.random.key(0)
    carry = module.initialize_carry(key, x.shape)
    weights = module.init(key, carry, x)["params"]
    cell, _ = from_linen(module, weights)
    convert = lambda weights: from_linen(module, weights)[1]
    step = lambda weights, carry, x: module.apply({"params": weights}, carry, x)
    agree_with_steps(cell, convert, step, weights, carry, x, **labels)


@pytest.mark.parametrize("name", ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell"])
def test_linen(name):
    module = getattr(linen, name)(H, param_dtype=jnp.float64)
    run(module, jnp.zeros((B, D)), oracle=f"Flax linen.{name}")


def test_linen_mgu_without_its_reset_gate_is_janet():
    """With it, f comes after the product, and f and 1 - f change places: not the paper's MGU."""
    module = linen.MGUCell(H, param_dtype=jnp.float64, reset_gate=False)
    labels = dict(oracle="Flax linen.MGUCell(reset_gate=False)", options="beta=0")
    run(module, jnp.zeros((B, D)), **labels)


def test_linen_convlstm():
    module = linen.ConvLSTMCell(H, (3,), param_dtype=jnp.float64)
    labels = dict(oracle="Flax linen.ConvLSTMCell", options="1D")
    run(module, jnp.zeros((B, 6, D)), **labels)
