"""Flax NNX's modules and ours with one set of weights: float64 to 1e-12, float32 to 1e-6."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxlstm as jl
from jaxlstm.interop import nnx as interop
from jaxlstm.interop.nnx import RNN, RecurrentCell
from tests import matrices

T, B, D, H = 7, 3, 4, 5
XS = np.random.default_rng(0).normal(size=(B, T, D))
CELLS = {
    "lstm": (nnx.LSTMCell, {}),
    "optimized lstm": (nnx.OptimizedLSTMCell, {}),
    "gru": (nnx.GRUCell, {}),
    "tanh": (nnx.SimpleCell, {}),
    "relu": (nnx.SimpleCell, {"activation_fn": nnx.relu}),
}


def drawn(module, seed=1):
    """The module with normal numbers for all of its params, biases too."""
    leaves = jax.tree.leaves(nnx.state(module, nnx.Param))
    rng = np.random.default_rng(seed)
    new = [jnp.asarray(0.5 * rng.normal(size=a.shape), a.dtype) for a in leaves]
    nnx.update(module, jax.tree.unflatten(jax.tree.structure(nnx.state(module, nnx.Param)), new))
    return module


def drawn_params(layer, dtype="float64"):
    """What its init gives, with random numbers; of a GRU without b_n."""
    params = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones(D, dtype))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), dtype), params)
    return params._replace(b_n=0 * params.b_n) if hasattr(params, "b_n") else params


def make(kind="lstm", features=D, dtype=jnp.float64, seed=1, **options):
    cell, more = CELLS[kind]
    rngs = nnx.Rngs(0)
    more = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs, **more, **options}
    return drawn(cell(features, H, **more), seed)


def rnn(kind="lstm", features=D, seed=1, **options):
    return nnx.RNN(make(kind, features, seed=seed), **options)


def run(layer, params, xs, carry=None):
    """Carry and outputs of our layer over a batch of sequences."""
    xs = jnp.moveaxis(jnp.asarray(xs), 1, 0)
    apply = layer.apply if isinstance(layer, jl.Layer) else lambda *a: jl.scan(layer, *a)
    carry, ys = apply(params, xs, carry)
    return carry, jnp.moveaxis(ys, 0, 1)


def close(actual, expected, tolerance):
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("kind", "dtype"), matrices.crossed(list(CELLS), ["float64", "float32"]))
def test_a_cell_taken_in_has_its_outputs_and_carries(kind, dtype):
    module, xs = make(kind, dtype=jnp.dtype(dtype)), XS.astype(dtype)
    states = np.random.default_rng(2).normal(size=(2, B, H)).astype(dtype)
    theirs = tuple(map(jnp.asarray, states)) if "lstm" in kind else jnp.asarray(states[0])
    cell, params = interop.from_nnx(module)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    structure = jax.tree.structure(cell.initial_carry(params, xs[:, 0]))
    ours = jax.tree.unflatten(structure, jax.tree.leaves(theirs))
    expected = nnx.RNN(module, return_carry=True)(jnp.asarray(xs), initial_carry=theirs)
    close(run(cell, params, xs, ours), expected, {"float64": 1e-12, "float32": 1e-6}[dtype])


def both_ways(merge=None, first="lstm", second="gru", features=D):
    options = {} if merge is None else {"merge_fn": merge}
    ahead, back = rnn(first, features), rnn(second, features, seed=2)
    return nnx.Bidirectional(ahead, back, **options)


LAYERS = {
    "lstm(5)": lambda: rnn(),
    "backward(gru(5))": lambda: rnn("gru", reverse=True, keep_order=True),
    "bidirectional(lstm(5), gru(5))": both_ways,
    "bidirectional(lstm(5), gru(5), combine='sum')": lambda: both_ways(jnp.add),
    "stack(bidirectional(elman(5), lstm(5)), backward(elman(5, activation='relu')), gru(5))": (
        lambda: nnx.Sequential(
            both_ways(None, "tanh", "optimized lstm"),
            rnn("relu", 2 * H, reverse=True, keep_order=True),
            rnn("gru", H),
        )
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_taken_in_has_its_outputs_and_goes_out_again_bit_for_bit(name):
    module = LAYERS[name]()
    layer, params = interop.from_nnx(module)
    assert repr(layer) == name
    expected = module(jnp.asarray(XS))
    close(run(layer, params, XS)[1], expected, 1e-12)
    optimized = "stack" in name
    out = interop.to_nnx(layer, params, optimized=optimized)
    if isinstance(layer, jl.Cell):
        out = nnx.RNN(out)
    np.testing.assert_array_equal(out(jnp.asarray(XS)), expected)
    before, after = (nnx.state(m, nnx.Param) for m in (module, out))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    again, back = interop.from_nnx(out)
    assert again is layer
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_dropout_between_layers_is_left_out():
    drop = nnx.Dropout(0.5, deterministic=True)
    module = nnx.Sequential(drop, rnn("gru"), drop, rnn("tanh", H))
    layer, params = interop.from_nnx(module)
    assert layer is jl.stack(jl.gru(H), jl.elman(H))
    close(run(layer, params, XS)[1], module(jnp.asarray(XS)), 1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize("cell", [jl.lstm(H), jl.gru(H), jl.elman(H, activation="relu")], ids=repr)
def test_params_given_out_come_back_bit_for_bit(cell, optimized, dtype):
    params = drawn_params(cell, dtype)
    module = interop.to_nnx(cell, params, optimized=optimized)
    assert type(module) is {
        "lstm": nnx.OptimizedLSTMCell if optimized else nnx.LSTMCell,
        "gru(": nnx.GRUCell,
        "elma": nnx.SimpleCell,
    }.get(repr(cell)[:4])
    again, back = interop.from_nnx(module)
    assert again is cell
    assert {a.dtype for a in jax.tree.leaves(back)} == {jnp.dtype(dtype)}
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_traced_weights_pass_through():
    module = both_ways()
    ours = lambda module: (run(*interop.from_nnx(module), XS)[1] ** 3).sum()
    theirs = lambda module: (module(jnp.asarray(XS)) ** 3).sum()
    gradients = [nnx.jit(nnx.grad(loss))(module) for loss in (ours, theirs)]
    assert len(jax.tree.leaves(gradients[0])) == 15
    close(*gradients, 1e-11)  # sums over T, B and H


def test_a_trained_module_of_our_own_cells_goes_to_other_libraries():
    ahead, back = (RecurrentCell(jl.gru(H), D, rngs=nnx.Rngs(n)) for n in (1, 2))
    layer, params = interop.from_nnx(nnx.Bidirectional(RNN(ahead), nnx.RNN(back)))
    assert layer is jl.bidirectional(jl.gru(H), jl.gru(H))
    expected = jl.BidirectionalParams(ahead.params, back.params)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def with_entry(name, value):
    module = make("gru")
    setattr(module.dense_h, name, value)
    return module


class Doubled(nnx.GRUCell):
    def __call__(self, carry, inputs):
        return super().__call__(carry, 2 * inputs)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nnx.Linear(D, H, rngs=nnx.Rngs(0)), r"module: expected one of LSTMCell, .* got Linear"),
        (Doubled(D, H, rngs=nnx.Rngs(0)), r"module: expected one of .* got Doubled"),
        (
            nnx.RNN(make("gru", gate_fn=nnx.relu)),
            r"cell/gate_fn: expected sigmoid, got relu",
        ),
        (make("lstm", activation_fn=nnx.relu), r"activation_fn: expected tanh, got"),
        (make("tanh", activation_fn=nnx.gelu), r"activation_fn: expected tanh or relu, got"),
        (make("tanh", residual=True), r"residual: expected False"),
        (
            nnx.GRUCell(D, H, dtype=jnp.float32, param_dtype=jnp.float64, rngs=nnx.Rngs(0)),
            r"dtype: expected None or that of the params, float64, .* got float32",
        ),
        (
            nnx.RNN(RecurrentCell(jl.gru(H), D, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))),
            r"cell/dtype: expected None or that of the params, float32, .* got bfloat16",
        ),
        (make("gru", promote_dtype=lambda a, dtype: a), r"promote_dtype: expected Flax's default"),
        (rnn(reverse=True), r"keep_order: expected True, as reverse is, got False"),
        (both_ways(jnp.multiply), r"merge_fn: expected concatenation"),
        (
            nnx.Bidirectional(rnn(), both_ways()),
            r"backward_rnn/module: expected an RNN, got Bidirectional",
        ),
        (nnx.Sequential(), r"layers: expected at least one RNN or Bidirectional, got none"),
        (nnx.Sequential(nnx.Dropout(0.5)), r"layers: expected at least one RNN or Bid.* got none"),
        (nnx.Sequential(make()), r"layers/0/module: expected an RNN or Bidirectional, got LSTMC"),
        (
            nnx.Sequential(rnn(time_major=True), rnn("gru", H)),
            r"time_major: expected the same in all layers",
        ),
        (
            nnx.RNN(with_entry("kernel", nnx.Param(jnp.ones((H, H))))),
            r"params 'cell/dense_h/kernel': expected shape \(5, 15\), got \(5, 5\)",
        ),
        (
            with_entry("kernel", nnx.Param(jnp.ones((H, 3 * H), int))),
            r"params 'dense_h/kernel': expected floating-point numbers, got int64",
        ),
        (
            with_entry("kernel", nnx.data(None)),
            r"params 'dense_h/kernel': expected an array, got none among dense_i",
        ),
        (with_entry("gain", nnx.Param(jnp.ones(H))), r"params: expected no other entries, got 'de"),
    ],
)
def test_modules_that_are_no_layer_of_ours_raise(module, message):
    with pytest.raises(ValueError, match=message):
        interop.from_nnx(module)


def test_a_carry_that_does_not_begin_at_zero_raises():
    with pytest.warns(UserWarning, match="carry_init is provided"):
        module = make(carry_init=nnx.initializers.ones_init())
    with pytest.raises(ValueError, match=r"carry_init: expected None, for zeros"):
        interop.from_nnx(module)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (jl.janet(H), r"layer: expected one of lstm\(\), gru\(\), .* Flax NNX has, got janet"),
        (jl.lstm(H, peephole=True), r"lstm's peephole: expected its default False, as Flax NNX"),
        (jl.lstm(H, cell_clip=1.0), r"lstm's cell_clip: expected its default"),
        (jl.backward(jl.mgu(H)), r"layer: expected one of .* got mgu"),
    ],
    ids=repr,
)
def test_layers_that_flax_has_not_raise(layer, message):
    params = drawn_params(layer)
    with pytest.raises(ValueError, match=message):
        interop.to_nnx(layer, params)


def test_params_that_flax_has_not_raise():
    cell = jl.gru(H)
    params = drawn_params(cell)
    message = r"params 'b_n': expected zeros, as GRUCell has no such bias \(RecurrentCell holds"
    with pytest.raises(ValueError, match=message):
        interop.to_nnx(cell, params._replace(b_n=jnp.ones(H)))
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda p: nnx.state(interop.to_nnx(cell, p)))(params)
    with pytest.raises(ValueError, match=r"params: expected those of lstm\(5\)"):
        interop.to_nnx(jl.lstm(H), params)
