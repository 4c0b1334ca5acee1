"""Flax's cells, linen and nnx."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

import jaxlstm as jl
from tests.parity.agreement import agree_with_steps

B, D, H = 3, 4, 5


def split(w, gates):
    return w.reshape(*w.shape[:-1], gates, H)


def stacked(params, side, names, leaf):
    """One leaf of a linen cell's dense layers, gates side by side: (..., G, H)."""
    return jnp.stack([params[side + name][leaf] for name in names], -2)


def lstm(params):
    return jl.LSTMParams(
        stacked(params, "i", "ifgo", "kernel"),
        stacked(params, "h", "ifgo", "kernel"),
        stacked(params, "h", "ifgo", "bias"),
    )


def gru(params):
    return jl.GRUParams(
        stacked(params, "i", "rzn", "kernel"),
        stacked(params, "h", "rzn", "kernel"),
        stacked(params, "i", "rzn", "bias"),
        params["hn"]["bias"],
    )


def elman(params):
    return jl.ElmanParams(params["i"]["kernel"], params["h"]["kernel"], params["i"]["bias"])


def janet(params):
    return jl.JANETParams(
        stacked(params, "i", "fn", "kernel"),
        stacked(params, "h", "fn", "kernel"),
        stacked(params, "i", "fn", "bias"),
    )


def convlstm(params):
    """Gates i, g, f, o; two biases; the step adds 1 to the forget gate."""
    x, h = params["ih"], params["hh"]
    order = lambda w: split(w, 4)[..., [0, 2, 1, 3], :]
    b = order(x["bias"] + h["bias"]).at[1].add(1)
    return jl.ConvLSTMParams(order(x["kernel"]), order(h["kernel"]), b)


LINEN = {
    "LSTMCell": (jl.lstm(H), lstm),
    "OptimizedLSTMCell": (jl.lstm(H), lstm),
    "GRUCell": (jl.gru(H), gru),
    "SimpleCell": (jl.elman(H), elman),
}


def run_linen(module, cell, convert, x, **labels):
    key = jax.random.key(0)
    carry = module.initialize_carry(key, x.shape)
    weights = module.init(key, carry, x)["params"]
    step = lambda weights, carry, x: module.apply({"params": weights}, carry, x)
    agree_with_steps(cell, convert, step, weights, carry, x, **labels)


@pytest.mark.parametrize("name", LINEN)
def test_linen(name):
    module = getattr(linen, name)(H, param_dtype=jnp.float64)
    run_linen(module, *LINEN[name], jnp.zeros((B, D)), oracle=f"Flax linen.{name}")


def test_linen_mgu_without_its_reset_gate_is_janet():
    """With it, f comes after the product, and f and 1 - f change places: not the paper's MGU."""
    module = linen.MGUCell(H, param_dtype=jnp.float64, reset_gate=False)
    labels = dict(oracle="Flax linen.MGUCell(reset_gate=False)", options="beta=0")
    run_linen(module, jl.janet(H, beta=0), janet, jnp.zeros((B, D)), **labels)


def test_linen_convlstm():
    module = linen.ConvLSTMCell(H, (3,), param_dtype=jnp.float64)
    labels = dict(oracle="Flax linen.ConvLSTMCell", options="1D")
    run_linen(module, jl.convlstm(H, (3,)), convlstm, jnp.zeros((B, 6, D)), **labels)


def nnx_lstm(state):
    """Of `nnx.LSTMCell`, whose forget gate's input layer is named `if_`."""
    return lstm({name.removesuffix("_"): leaves for name, leaves in state.items()})


def nnx_optimized_lstm(state):
    x, h = state["dense_i"], state["dense_h"]
    return jl.LSTMParams(split(x["kernel"], 4), split(h["kernel"], 4), split(h["bias"], 4))


def nnx_gru(state):
    x, h = state["dense_i"], state["dense_h"]
    b_n = jnp.zeros(H)  # it has none
    return jl.GRUParams(split(x["kernel"], 3), split(h["kernel"], 3), split(x["bias"], 3), b_n)


def nnx_elman(state):
    x, h = state["dense_i"], state["dense_h"]
    return jl.ElmanParams(x["kernel"], h["kernel"], x["bias"])


NNX = {
    "LSTMCell": (jl.lstm(H), nnx_lstm),
    "OptimizedLSTMCell": (jl.lstm(H), nnx_optimized_lstm),
    "GRUCell": (jl.gru(H), nnx_gru),
    "SimpleCell": (jl.elman(H), nnx_elman),
}


@pytest.mark.parametrize("name", NNX)
def test_nnx(name):
    cell, convert = NNX[name]
    rngs = nnx.Rngs(0)
    module = getattr(nnx, name)(D, H, dtype=jnp.float64, param_dtype=jnp.float64, rngs=rngs)
    carry = module.initialize_carry((B, D), rngs)
    definition, state = nnx.split(module)

    def step(weights, carry, x):
        nnx.replace_by_pure_dict(state, weights)
        return nnx.merge(definition, state)(carry, x)

    weights = nnx.to_pure_dict(state)
    x, oracle = jnp.zeros((B, D)), f"Flax nnx.{name}"
    agree_with_steps(cell, convert, step, weights, carry, x, oracle=oracle)
