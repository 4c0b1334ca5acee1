"""Equinox's cells and ours with one set of weights; tests/parity has their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.interop import equinox as interop

eqx = pytest.importorskip("equinox", reason="Equinox is not installed: pip install equinox==0.13.8")

T, B, D, H = 7, 3, 4, 5
KINDS = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}
DTYPES = {"float32": 1e-6, "float64": 1e-12}


def normal(seed, *shape, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def make(kind, dtype="float64", **options):
    return KINDS[kind](D, H, dtype=jnp.dtype(dtype), key=jax.random.key(0), **options)


def both(module, cell, params):
    """Equinox's states and outputs, one sequence at a time, and ours, of the same carry."""
    dtype = params.b.dtype
    xs = normal(1, T, B, D, dtype=dtype)
    carry = cell.initial_carry(params, xs[0])
    carry = type(carry)(*(normal(n, B, H, dtype=dtype) for n in range(len(carry))))

    def step(states, x):
        new = module(x, states if len(states) == 2 else states[0])
        new = new if isinstance(new, tuple) else (new,)
        return new, new[0]

    one = lambda xs, *states: jax.lax.scan(step, states, xs)
    states, ys = jax.vmap(one, (1, 0, 0)[: 1 + len(carry)], (0, 1))(xs, *carry[::-1])
    return (states[::-1], ys), jl.scan(cell, params, xs, carry)


def close(actual, expected, dtype):
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=DTYPES[dtype], atol=DTYPES[dtype])


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_module_taken_in_has_its_outputs_and_comes_back(kind, dtype, use_bias):
    module = make(kind, dtype, use_bias=use_bias)
    cell, params = interop.from_equinox(module)
    assert cell is getattr(jl, kind)(H)
    close(*both(module, cell, params), dtype)

    back = interop.to_equinox(cell, params)
    for name in ("weight_ih", "weight_hh"):
        np.testing.assert_array_equal(getattr(back, name), getattr(module, name))
    if use_bias:
        jax.tree.map(np.testing.assert_array_equal, back, module)
    else:
        assert back.use_bias
        assert not back.bias.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_params_given_out_come_back_bit_for_bit_and_give_the_module_s_outputs(kind, dtype):
    cell, like = interop.from_equinox(make(kind, dtype))
    params = jax.tree.map(lambda a: normal(a.size, *a.shape, dtype=dtype), like)
    module = interop.to_equinox(cell, params)
    assert {a.dtype for a in jax.tree.leaves(module)} == {jnp.dtype(dtype)}
    close(*both(module, cell, params), dtype)
    again, back = interop.from_equinox(module)
    assert again is cell
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize("kind", KINDS)
def test_traced_weights_and_half_precision(kind):
    cell, params = interop.from_equinox(make(kind, "bfloat16"))
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}

    @jax.jit
    def there_and_back(params):
        return interop.from_equinox(interop.to_equinox(cell, params))[1]

    jax.tree.map(np.testing.assert_array_equal, there_and_back(params), params)


def changed(kind, **weights):
    where = lambda module: [getattr(module, name) for name in weights]
    return eqx.tree_at(where, make(kind), list(weights.values()))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (5, r"module: expected an eqx\.nn\.LSTMCell or eqx\.nn\.GRUCell, got <class 'int'>"),
        (
            changed("lstm", weight_ih=jnp.ones((19, D))),
            r"LSTMCell 'weight_ih': expected shape \(20, 4\), got \(19, 4\)",
        ),
        (changed("lstm", bias=jnp.ones(3)), r"LSTMCell 'bias': expected shape \(20,\)"),
        (changed("gru", bias_n=jnp.ones(3)), r"GRUCell 'bias_n': expected shape \(5,\)"),
        (
            changed("gru", weight_hh=jnp.ones((15, H), int)),
            r"GRUCell 'weight_hh': expected floating-point numbers, got int64",
        ),
    ],
)
def test_modules_that_do_not_fit_raise_and_name_the_weight(module, message):
    with pytest.raises(ValueError, match=message):
        interop.from_equinox(module)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (jl.lstm(H, projection=2), r"lstm's projection: expected its default None, as Equinox"),
        (jl.lstm(H, peephole=True), r"lstm's peephole: expected its default False"),
        (jl.elman(H), r"layer: expected one of lstm\(\), gru\(\), as Equinox has, got elman"),
        (jl.stack(jl.gru(H)), r"layer: expected one of .* got stack"),
    ],
    ids=repr,
)
def test_cells_that_equinox_has_not_raise(cell, message):
    params = jax.eval_shape(cell.init, jax.random.key(0), jnp.ones(D))
    with pytest.raises(ValueError, match=message):
        interop.to_equinox(cell, params)


def test_params_of_another_cell_raise():
    params = jl.init_lstm(jax.random.key(0), D, H)
    with pytest.raises(ValueError, match=r"params: expected those of gru\(5\)"):
        interop.to_equinox(jl.gru(H), params)
