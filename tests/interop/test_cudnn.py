"""The flat weights of cuDNN's LSTM: its reference in JAX, and where there is a GPU itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

import jaxlstm as jl
from jaxlstm.interop import cudnn

T, B, D, H = 7, 3, 4, 5
LENGTHS = np.array([7, 2, 4], np.int32)  # a length of 0 is no sequence to cuDNN
SHAPES = [(1, False), (3, False), (1, True), (2, True)]  # layers, bidirectional


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def draw(layers, bidirectional):
    """Weights, inputs and the states before, cuDNN's batch first."""
    count = rnn.get_num_params_in_lstm(D, H, layers, bidirectional)
    number = layers * (2 if bidirectional else 1)
    return (
        0.5 * normal(0, count),
        normal(1, B, T, D),
        normal(2, number, B, H),
        normal(3, number, B, H),
    )


def take(weights, layers, bidirectional):
    sizes = dict(features=D, hidden=H, layers=layers, bidirectional=bidirectional)
    return cudnn.from_cudnn(weights, **sizes)


def ours(layer, params, xs, h, c):
    """Outputs and states in cuDNN's order."""
    carry = [jl.LSTMCarry(*states) for states in zip(c, h, strict=True)]
    xs = jnp.swapaxes(xs, 0, 1)
    if isinstance(layer, jl.Cell):
        carry = carry[0] if len(carry) == 1 else tuple(carry)
        carry, ys = jl.scan(layer, params, xs, carry, lengths=LENGTHS)
    else:
        both = [jl.BidirectionalCarry(*carry[n : n + 2]) for n in range(0, len(carry), 2)]
        carry = both[0] if len(both) == 1 else tuple(both)
        carry, ys = layer.apply(params, xs, carry, lengths=LENGTHS)
    c, h = (jnp.stack(jax.tree.leaves(carry)[n::2]) for n in (0, 1))
    return jnp.swapaxes(ys, 0, 1), h, c


def theirs(weights, xs, h, c, layers, bidirectional):
    unpacked = rnn.unpack_lstm_weights(weights, D, H, layers, bidirectional)
    return rnn.lstm_ref(xs, h, c, *unpacked, LENGTHS, D, H, layers, 0.0, bidirectional)


def close(actual, expected, tolerance=1e-6):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("layers", "bidirectional"), SHAPES)
def test_weights_in_and_out_against_the_reference(layers, bidirectional):
    weights, *inputs = draw(layers, bidirectional)
    layer, params = take(weights, layers, bidirectional)
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(params))
    expected = theirs(weights, *inputs, layers, bidirectional)
    close(ours(layer, params, *inputs), expected)

    given = cudnn.to_cudnn(layer, params)
    assert given.dtype == jnp.float32
    *_, b_hh = rnn.unpack_lstm_weights(given, D, H, layers, bidirectional)
    assert not any(b.any() for b in b_hh.values())
    close(theirs(given, *inputs, layers, bidirectional), expected)
    again, back = take(given, layers, bidirectional)
    assert again is layer
    jax.tree.map(np.testing.assert_array_equal, back, params)
    np.testing.assert_array_equal(cudnn.to_cudnn(again, back), given)


def test_traced_weights_and_their_gradient():
    weights, *inputs = draw(1, True)
    seeds = normal(4, B, T, 2 * H), normal(5, 2, B, H), normal(6, 2, B, H)
    total = lambda outputs: sum(jnp.vdot(a, s) for a, s in zip(outputs, seeds, strict=True))
    through = lambda w: total(ours(*take(w, 1, True), *inputs))
    reference = lambda w: total(theirs(w, *inputs, 1, True))
    actual, expected = (jax.jit(jax.grad(f))(weights) for f in (through, reference))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)  # sums of 21 steps, up to 20

    layer, params = take(weights, 1, True)
    vector = jax.jit(lambda params: cudnn.to_cudnn(layer, params))(params)
    np.testing.assert_array_equal(vector, cudnn.to_cudnn(layer, params))


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="no GPU, which cuDNN needs")
@pytest.mark.parametrize(("layers", "bidirectional"), SHAPES)
def test_weights_out_against_cudnn(layers, bidirectional):
    weights, *inputs = draw(layers, bidirectional)
    layer, params = take(weights, layers, bidirectional)
    vector, highest = cudnn.to_cudnn(layer, params), jax.lax.Precision.HIGHEST
    sizes, arrays = (D, H, layers), map(jnp.asarray, (*inputs, vector, LENGTHS))
    expected = rnn.lstm(*arrays, *sizes, 0.0, bidirectional, highest)
    with jax.default_matmul_precision("highest"):
        actual = ours(layer, params, *inputs)
    close(actual, expected, 1e-5)  # float32, with sums and exponentials of its own


@pytest.mark.parametrize(
    ("weights", "sizes", "message"),
    [
        (
            np.ones(415, np.float32),
            {},
            r"weights: expected shape \(416,\), as of features=3, hidden=8, layers=1 and "
            r"bidirectional=False, got \(415,\)",
        ),
        (
            np.ones((1, 416), np.float32),
            {"layers": 2, "bidirectional": True},
            r"weights: expected shape \(2496,\), as of .*layers=2 and bidirectional=True, got",
        ),
        (np.ones(416), {}, r"weights: expected float32, as cuDNN has them, got float64"),
        (np.ones(416, int), {}, r"weights: expected floating-point numbers, got int64"),
        (np.ones(416, np.float32), {"features": 0}, r"features: expected a positive integer"),
        (np.ones(416, np.float32), {"hidden": 8.0}, r"hidden: expected a positive integer"),
        (np.ones(416, np.float32), {"layers": 0}, r"layers: expected a positive integer"),
    ],
)
def test_vectors_that_do_not_fit_raise(weights, sizes, message):
    with pytest.raises(ValueError, match=message):
        cudnn.from_cudnn(weights, **{"features": 3, "hidden": 8, **sizes})


def both(cell, **options):
    return jl.bidirectional(cell, cell, **options)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (jl.gru(H), r"layer: expected one of lstm\(\), as cuDNN has, got gru"),
        (jl.lstm(H, projection=2), r"lstm's projection: expected its default None, as cuDNN"),
        (jl.lstm(H, peephole=True), r"lstm's peephole: expected its default False"),
        (both(jl.lstm(H), combine="sum"), r"layer: expected outputs side by side, as cuDNN"),
        (jl.stack(jl.lstm(H), jl.lstm(6)), r"layer: expected layers of one kind and size"),
        (jl.stack(both(jl.lstm(H)), jl.lstm(H)), r"layer: expected layers of one kind and size"),
    ],
    ids=repr,
)
def test_layers_that_cudnn_has_not_raise(layer, message):
    shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones(D, jnp.float32))
    params = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    with pytest.raises(ValueError, match=message):
        cudnn.to_cudnn(layer, params)


@pytest.mark.parametrize("name", ["w_x", "w_h", "b"])
def test_params_of_another_dtype_raise(name):
    params = jl.init_lstm(jax.random.key(0), D, H)
    params = params._replace(**{name: getattr(params, name).astype(jnp.float64)})
    with pytest.raises(ValueError, match=rf"params\.{name}: expected float32, .* got float64"):
        cudnn.to_cudnn(jl.lstm(H), params)


def test_params_of_another_layer_raise():
    params = jl.init_lstm(jax.random.key(0), D, H)
    with pytest.raises(ValueError, match=r"params: expected w_x of 5 inputs in lstm, .* got 4"):
        cudnn.to_cudnn(jl.stack(jl.lstm(H), jl.lstm(H)), (params, params))
    with pytest.raises(ValueError, match=r"params: expected those of lstm\(6\)"):
        cudnn.to_cudnn(jl.lstm(6), params)
