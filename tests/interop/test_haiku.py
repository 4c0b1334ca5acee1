"""Haiku's cores and ours with one set of weights; tests/parity has their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.interop import haiku as interop
from tests import matrices

hk = pytest.importorskip("haiku", reason="Haiku is not installed: pip install dm-haiku==0.0.17")

T, B, D, H = 7, 3, 4, 5
DTYPES = {"float32": 1e-6, "float64": 1e-12}
RELU = jl.elman(H, activation="relu")
DEEP = jl.stack(jl.lstm(H), jl.gru_reset_before(H), jl.lstm(H))
CORES = {  # the shape of space, theirs, ours
    "LSTM": ((), lambda: hk.LSTM(H), jl.lstm(H)),
    "GRU": ((), lambda: hk.GRU(H), jl.gru_reset_before(H)),
    "VanillaRNN": ((), lambda: hk.VanillaRNN(H), RELU),
    "one bias": ((), lambda: hk.VanillaRNN(H, double_bias=False), RELU),
    "Conv1DLSTM": ((4,), lambda: hk.Conv1DLSTM((4,), H, 3), jl.convlstm(H, (3,))),
    "Conv2DLSTM": ((4, 3), lambda: hk.Conv2DLSTM((4, 3), H, (3, 2)), jl.convlstm(H, (3, 2))),
    "Conv3DLSTM": ((2, 3, 2), lambda: hk.Conv3DLSTM((2, 3, 2), H, 2), jl.convlstm(H, (2, 2, 2))),
    "DeepRNN": ((), lambda: hk.DeepRNN([hk.LSTM(H), hk.GRU(H), hk.LSTM(H)]), DEEP),
}
NAMES = {"DeepRNN": ("lstm", "gru", "lstm_1")}
FORGET = slice(2 * H, 3 * H)  # the third of gates i, g, f, o


def normal(seed, *shape, dtype):
    return jnp.asarray(0.5 * np.random.default_rng(seed).normal(size=shape), dtype)


def random(tree, dtype):
    leaves, structure = jax.tree.flatten(tree)
    drawn = [normal(n, *a.shape, dtype=dtype) for n, a in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


def states_of(carry):
    """Haiku's states of a carry of ours."""
    if isinstance(carry, jl.LSTMCarry | jl.ConvLSTMCarry):
        return hk.LSTMState(hidden=carry.h, cell=carry.c)
    return carry.h if hasattr(carry, "h") else tuple(map(states_of, carry))


def transform(make):
    return hk.without_apply_rng(hk.transform(lambda x, state: make()(x, state)))


def start(name, dtype):
    """Inputs and a carry of ours."""
    space, _, cell = CORES[name]
    xs = normal(9, T, B, *space, D, dtype=dtype)
    shapes = jax.eval_shape(lambda x: cell.init(jax.random.key(0), x), xs[0])
    return xs, random(cell.initial_carry(shapes, xs[0]), dtype)


def theirs(name, weights, xs, carry):
    """Their last states and outputs."""
    core = transform(CORES[name][1])

    def step(state, x):
        y, state = core.apply(weights, x, state)
        return state, y

    return jax.lax.scan(step, states_of(carry), xs)


def drawn(name, dtype):
    xs, carry = start(name, dtype)
    core = transform(CORES[name][1])
    weights = jax.eval_shape(core.init, jax.random.key(0), xs[0], states_of(carry))
    return random(weights, dtype), xs, carry


def agree(name, params, weights, xs, carry):
    carries, ys = jl.scan(CORES[name][2], params, xs, carry)
    actual = jax.tree.leaves((states_of(carries), ys))
    expected = jax.tree.leaves(theirs(name, weights, xs, carry))
    tolerance = DTYPES[str(xs.dtype)]
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == xs.dtype
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "dtype"), matrices.crossed(list(CORES), list(DTYPES)))
def test_cores_in_and_out(name, dtype):
    weights, xs, carry = drawn(name, dtype)
    cell, params = interop.from_haiku(weights, name=NAMES.get(name))
    assert cell is CORES[name][2]
    agree(name, params, weights, xs, carry)

    given = interop.to_haiku(cell, params)
    assert set(given) == set(weights)
    agree(name, params, given, xs, carry)

    exact = jax.tree.map_with_path(_exactly, params)  # where b - 1 is
    _, back = interop.from_haiku(interop.to_haiku(cell, exact), name=NAMES.get(name))
    jax.tree.map(np.testing.assert_array_equal, back, exact)


def _exactly(path, a):
    """The params as they are, but for forget biases in [0.5, 2]."""
    forgets = path[-1].name == "b" and a.shape == (4, H)
    return a.at[1].set(jnp.linspace(0.5, 2, H, dtype=a.dtype)) if forgets else a


@pytest.mark.parametrize("dtype", matrices.few(["bfloat16", *DTYPES], long=["float32"]))
def test_the_forget_bias_is_rounded_once_and_nothing_else_at_all(dtype):
    wide = 300
    like = jax.eval_shape(jl.lstm(wide).init, jax.random.key(0), jnp.ones(1, dtype))
    params = random(like, dtype)
    params = params._replace(b=3 * params.b)
    _, back = interop.from_haiku(interop.to_haiku(jl.lstm(wide), params))
    assert {a.dtype for a in back[:3]} == {jnp.dtype(dtype)}
    b, actual = (np.asarray(p.b[1], np.float64) for p in (params, back))
    exact = (b >= 0.5) & (b <= 2)
    assert 20 < exact.sum() < 280
    np.testing.assert_array_equal(actual[exact], b[exact])
    half = np.ldexp(float(jnp.finfo(dtype).eps) / 2, np.frexp(b - 1)[1] - 1)  # a unit of b - 1
    assert (abs(actual - b) <= half).all()
    assert (actual != b).any()
    restored = back._replace(b=back.b.at[1].set(params.b[1]))
    jax.tree.map(np.testing.assert_array_equal, restored, params)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "one bias", "Conv2DLSTM"])
def test_weights_of_theirs_come_back(name):
    weights, *_ = drawn(name, "float32")
    for module in weights.values():
        if name == "Conv2DLSTM":  # of two biases only the sum comes back
            module["b"] = jnp.zeros_like(module["b"])
        if name == "LSTM":
            module["b"] = module["b"].at[FORGET].set(np.float32([0, 0, -0.5, -1.3, -2]))
    back = interop.to_haiku(*interop.from_haiku(weights))
    for path, module in weights.items():
        for entry, a in module.items():
            np.testing.assert_array_equal(back[path][entry], a, f"{path} {entry}")
    fresh = {"b"} if name == "one bias" else set()
    assert all(set(back[path]) - set(module) <= fresh for path, module in weights.items())


def test_a_core_of_a_model_is_taken_by_its_path():
    class Model(hk.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = hk.LSTM(H), hk.LSTM(3)

        def __call__(self, xs):
            core = hk.DeepRNN([self.first, self.second])
            ys, _ = hk.dynamic_unroll(core, xs, core.initial_state(B))
            return hk.nets.MLP([6, 2])(ys), ys

    model = hk.without_apply_rng(hk.transform(lambda xs: Model()(xs)))
    xs = normal(1, T, B, D, dtype="float64")
    weights = random(jax.eval_shape(model.init, jax.random.key(0), xs), "float64")
    paths = "model/~/lstm", "model/~/lstm_1"
    cell, params = interop.from_haiku(weights, name=paths)
    assert cell is jl.stack(jl.lstm(H), jl.lstm(3))
    ys = model.apply(weights, xs)[1]
    np.testing.assert_allclose(jl.scan(cell, params, xs)[1], ys, rtol=1e-12, atol=1e-12)

    single, own = interop.from_haiku(weights, name=paths[1])
    assert single is jl.lstm(3)
    jax.tree.map(np.testing.assert_array_equal, own, params[1])
    given = interop.to_haiku(cell, params, name=paths)
    actual = model.apply(weights | given, xs)[1]
    np.testing.assert_allclose(actual, ys, rtol=1e-12, atol=1e-12)
    assert list(interop.to_haiku(single, own, name=paths[1])) == ["model/~/lstm_1/linear"]


def test_traced_weights():
    params = jl.init_lstm(jax.random.key(0), D, H)
    there_and_back = lambda p: interop.from_haiku(interop.to_haiku(jl.lstm(H), p))[1]
    jax.tree.map(np.testing.assert_array_equal, jax.jit(there_and_back)(params), params)


def module(*shape, **more):
    entries = {"w": np.ones(shape), "b": np.ones(shape[-1])} | more
    return {name: a for name, a in entries.items() if a is not None}


LSTM = {"lstm/linear": module(D + H, 4 * H)}
TWO = LSTM | {"lstm_1/linear": module(2 * H, 4 * H)}
CONV = {
    "c/input_to_hidden": module(3, D, 4 * H),
    "c/hidden_to_hidden": module(3, H, 4 * H),
}


@pytest.mark.parametrize(
    ("weights", "name", "message"),
    [
        (5, None, r"params: expected a mapping of paths to entries, got <class 'int'>"),
        ({"lstm": 5}, None, r"params 'lstm': expected a mapping of names to arrays, got"),
        ({}, None, r"params: expected modules of a core, as 'lstm/linear', got none"),
        ({"linear": module(2, 3)}, None, r"params: expected modules of a core, .* got linear"),
        (TWO, None, r"name: expected a core's path, one of \['lstm', 'lstm_1'\], got None"),
        (TWO, "gru", r"name: expected a core's path, one of \['lstm', 'lstm_1'\], got 'gru'"),
        (TWO, ["lstm"], r"name: expected a core's path, .* got \['lstm'\]"),
        (TWO, (), r"name: expected some of \['lstm', 'lstm_1'\], got \(\)"),
        (
            LSTM | {"linear": module(2, 3)},
            None,
            r"name: expected a core's path, as 'lstm', beside \['linear'\], got None",
        ),
        (
            TWO | {"lstm_1/linear": module(D + 2 * H, 4 * H)},
            ("lstm", "lstm_1"),
            r"params of 'lstm_1': expected 5 features, as the core before it has outputs, got 9",
        ),
        (
            {"lstm/linear": module(D + H, 18)},
            None,
            r"params 'lstm/linear' 'w': expected 4 times the hidden size on the last axis, got",
        ),
        (
            {"lstm/linear": module(H, 4 * H)},
            None,
            r"params 'lstm/linear' 'w': expected more than 5 rows, .* got \(5, 20\)",
        ),
        (
            {"lstm/linear": module(9, 20, b=None)},
            None,
            r"params 'lstm/linear' 'b': expected an array, got none among w",
        ),
        (
            {"lstm/linear": module(9, 20, b=np.ones(20, int))},
            None,
            r"params 'lstm/linear' 'b': expected floating-point numbers, got int64",
        ),
        (
            {"lstm/linear": module(9, 20, peephole=np.ones(5))},
            None,
            r"params 'lstm/linear': expected no other entries, got 'peephole'",
        ),
        (
            {"gru": {"w_i": np.ones((4, 15)), "w_h": np.ones((5, 12)), "b": np.ones(15)}},
            None,
            r"params 'gru' 'w_h': expected shape \(5, 15\), got \(5, 12\)",
        ),
        (
            {"rnn/linear": module(4, 5), "rnn/linear_1": module(4, 5)},
            None,
            r"params 'rnn/linear_1' 'w': expected shape \(5, 5\), got \(4, 5\)",
        ),
        (
            CONV | {"c/hidden_to_hidden": module(2, H, 4 * H)},
            None,
            r"params 'c/hidden_to_hidden' 'w': expected shape \(3, 5, 20\), got \(2, 5, 20\)",
        ),
        (
            CONV | {"c/input_to_hidden": module(D, 4 * H)},
            None,
            r"params 'c/input_to_hidden' 'w': expected shape \(any, any, any\), got \(4, 20\)",
        ),
    ],
)
def test_weights_that_do_not_fit_raise_and_name_the_entry(weights, name, message):
    with pytest.raises(ValueError, match=message):
        interop.from_haiku(weights, name=name)


@pytest.mark.parametrize(
    ("cell", "name", "message"),
    [
        (jl.lstm(H, peephole=True), None, r"lstm's peephole: expected its default False, as Haiku"),
        (jl.convlstm(H, (3,), peephole=True), None, r"convlstm's peephole: expected its default"),
        (jl.gru(H), None, r"layer: expected one of lstm\(\), .*, as Haiku has, got gru"),
        (jl.elman(H), None, r"elman's activation: expected 'relu', .* got 'tanh'"),
        (jl.bidirectional(jl.lstm(H), jl.lstm(H)), None, r"layer: expected one direction"),
        (jl.lstm(H), (), r"name: expected a path for each of 1 cores, got \(\)"),
        (jl.lstm(H), ("a", "b"), r"name: expected a path for each of 1 cores, got \('a', 'b'\)"),
        (jl.stack(jl.lstm(H), jl.lstm(H)), "a", r"name: expected a path for each of 2 cores"),
        (jl.stack(jl.lstm(H), jl.lstm(H)), ("a", "a"), r"name: expected a path for each of 2"),
    ],
    ids=repr,
)
def test_layers_and_names_that_haiku_has_not_raise(cell, name, message):
    space = (2,) if cell.name.startswith("conv") else ()
    params = jax.eval_shape(cell.init, jax.random.key(0), jnp.ones((*space, D)))
    with pytest.raises(ValueError, match=message):
        interop.to_haiku(cell, params, name=name)


def test_params_of_another_cell_raise():
    params = jl.init_lstm(jax.random.key(0), D, H)
    with pytest.raises(ValueError, match=r"params: expected those of lstm\(6\)"):
        interop.to_haiku(jl.lstm(6), params)
    with pytest.raises(ValueError, match=r"params: expected w_x of 5 inputs in lstm, .* got 4"):
        interop.to_haiku(jl.stack(jl.lstm(H), jl.lstm(H)), (params, params))
