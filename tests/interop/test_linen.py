"""Flax Linen's modules and ours with one set of weights: float64 to 1e-12, float32 to 1e-6."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from flax.core import freeze
from flax.traverse_util import flatten_dict, unflatten_dict

import jaxlstm as jl
from jaxlstm.interop.linen import RNN, RecurrentCell, from_linen, to_linen, to_variables
from tests import matrices

T, B, D, H = 7, 3, 4, 5
CELLS = {  # a module, our cell, the shape of space
    "LSTMCell": (linen.LSTMCell(H), jl.lstm(H), ()),
    "OptimizedLSTMCell": (linen.OptimizedLSTMCell(H), jl.lstm(H), ()),
    "GRUCell": (linen.GRUCell(H), jl.gru(H), ()),
    "SimpleCell": (linen.SimpleCell(H), jl.elman(H), ()),
    "relu": (linen.SimpleCell(H, activation_fn=linen.relu), jl.elman(H, activation="relu"), ()),
    "MGUCell": (linen.MGUCell(H, reset_gate=False), jl.janet(H, beta=0.0), ()),
    "ConvLSTMCell": (linen.ConvLSTMCell(H, (3,)), jl.convlstm(H, (3,)), (6,)),
}
X64 = dict(param_dtype=jnp.float64)  # else its carry is float32, which nn.RNN refuses
GRU = linen.RNN(linen.GRUCell(H, **X64))
LSTM = linen.RNN(linen.OptimizedLSTMCell(H, **X64))
LAYERS = {
    "RNN": (GRU.clone(unroll=2), jl.gru(H)),
    "reverse": (GRU.clone(reverse=True, keep_order=True), jl.backward(jl.gru(H))),
    "both": (linen.Bidirectional(LSTM, GRU), jl.bidirectional(jl.lstm(H), jl.gru(H))),
    "sum": (
        linen.Bidirectional(
            linen.RNN(linen.GRUCell(H, **X64), reverse=True), GRU, merge_fn=jnp.add
        ),
        jl.bidirectional(jl.gru(H), jl.gru(H), combine="sum"),
    ),
    "stack": (
        linen.Sequential(
            [
                linen.Bidirectional(LSTM, GRU),
                linen.RNN(linen.GRUCell(H, **X64), reverse=True, keep_order=True),
            ]
        ),
        jl.stack(jl.bidirectional(jl.lstm(H), jl.gru(H)), jl.backward(jl.gru(H))),
    ),
}


def random(tree, seed, dtype=jnp.float64):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), dtype), tree)


def drawn(owner, *args, dtype=jnp.float64):
    """What its init gives, with random numbers."""
    return random(jax.eval_shape(owner.init, jax.random.key(0), *args), 1, dtype)


def close(actual, expected, tolerance=1e-12):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


def cast(tree, dtype):
    return jax.tree.map(lambda a: a.astype(dtype), tree)


def equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def run_steps(module, weights, carry, xs):
    step = lambda carry, x: module.apply({"params": weights}, carry, x)
    return jax.lax.scan(step, carry, xs)


def run(layer, params, xs):
    scan = layer.apply if isinstance(layer, jl.Layer) else lambda *a: jl.scan(layer, *a)
    return scan(params, xs)[1]


@pytest.mark.parametrize(
    ("name", "dtype"), matrices.crossed([*CELLS, "no bias"], ["float64", "float32"])
)
def test_a_cell_taken_in_has_its_outputs_and_carries(name, dtype):
    module = linen.ConvLSTMCell(2, (2, 3), strides=[1, 1], use_bias=False)
    module, cell, space = CELLS.get(name, (module, jl.convlstm(2, (2, 3)), (4, 6)))
    xs = random(np.zeros((T, B, *space, D)), 0)
    carry = random(module.initialize_carry(jax.random.key(0), xs.shape[1:]), 1)
    weights = drawn(module, carry, xs[0])["params"]
    taken, params = from_linen(module, weights)
    assert taken is cell
    structure = jax.tree.structure(cell.initial_carry(params, xs[0]))
    given, c, x = cast((weights, carry, xs), dtype)
    start = jax.tree.unflatten(structure, jax.tree.leaves(c))
    actual = jl.scan(cell, from_linen(module, given)[1], x, start)
    assert {a.dtype for a in jax.tree.leaves(actual)} == {jnp.dtype(dtype)}
    close(actual, run_steps(module, given, c, x), {"float64": 1e-12, "float32": 1e-6}[dtype])
    if not space:  # else there are two biases, of which only the sum counts
        equal(to_linen(cell, params)[1], weights)


@pytest.mark.parametrize("name", CELLS)
def test_params_given_out_come_back_bit_for_bit(name):
    """So that the module has the outputs too, which what is taken in is held to above."""
    kind, cell, space = CELLS[name]
    params = drawn(cell, np.zeros((B, *space, D)))
    module, weights = to_linen(cell, params, optimized=name != "LSTMCell")
    assert (type(module), module.param_dtype) == (type(kind), jnp.float64)
    again, back = from_linen(module, weights)
    assert again is cell
    equal(back, params)
    there_and_back = lambda params: from_linen(module, to_linen(cell, params)[1])[1]
    equal(jax.jit(there_and_back)(params), params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_are_kept(dtype):
    params = random(jl.init_gru(jax.random.key(0), D, H), 0, dtype)
    module, weights = to_linen(jl.gru(H), params)
    back = from_linen(module.clone(dtype=dtype), weights)[1]
    assert {a.dtype for a in (*back, *jax.tree.leaves(weights))} == {jnp.dtype(dtype)}
    assert module.param_dtype == jnp.dtype(dtype)
    equal(back, params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_forget_bias_comes_back_whatever_1_does_to_it(dtype):
    """b - 1 + 1 is not b for either of the first two."""
    b = jnp.array([1e-8, -3e-9, 0.3, -1e-3, 0.0, 1.0, 2.7, -70.0, 1e3, 7e5], dtype)
    module = linen.ConvLSTMCell(len(b), (1,))
    like = jax.eval_shape(lambda key: jl.init_convlstm(key, D, len(b), (1,)), jax.random.key(0))
    params = random(like, 0, dtype)
    params = params._replace(b=params.b.at[1].set(b))
    weights = to_linen(jl.convlstm(len(b), (1,)), params)[1]
    equal(from_linen(module, weights)[1], params)
    assert (np.asarray(b) != np.asarray(b - 1 + 1))[:2].all()
    whole = np.float64(weights["ih"]["bias"] + weights["hh"]["bias"])[2 * len(b) : 3 * len(b)]
    np.testing.assert_allclose(whole, np.float64(b) - 1, rtol=float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("name", matrices.few(LAYERS, long=["reverse", "both"]))  # as in "stack"
def test_a_layer_has_the_module_s_outputs_and_comes_back(name):
    module, layer = LAYERS[name]
    xs = random(np.zeros((B, T, D)), 0)
    variables = drawn(module, xs)
    taken, params = from_linen(module, variables)
    assert taken is layer
    ys = run(layer, params, xs.swapaxes(0, 1)).swapaxes(0, 1)
    close(ys, module.apply(variables, xs))
    like, weights = to_linen(layer, params)
    if name == "RNN":
        like, weights = linen.RNN(like), {"cell": weights}
    equal(weights, variables["params"])
    close(like.apply({"params": weights}, xs), ys)


def test_convolutions_in_either_direction_come_back():
    layer = jl.bidirectional(jl.convlstm(2, (3,)), jl.convlstm(3, (1,)))
    xs = np.zeros((T, 6, D))
    params = drawn(layer, xs[0])
    module, weights = to_linen(layer, params)
    xs = random(xs, 0)
    close(module.apply({"params": weights}, xs), run(layer, params, xs))
    again, back = from_linen(module, weights)
    assert again is layer
    equal(back, params)


def test_dropout_between_layers_is_left_out():
    drop = linen.Dropout(0.5, deterministic=True)
    module = linen.Sequential([drop, GRU, drop, linen.RNN(linen.SimpleCell(2, **X64)), drop])
    xs = random(np.zeros((T, B, D)), 0)
    variables = drawn(module, xs)
    layer, params = from_linen(module, variables)
    assert layer is jl.stack(jl.gru(H), jl.elman(2))
    close(run(layer, params, xs.swapaxes(0, 1)).swapaxes(0, 1), module.apply(variables, xs))


@pytest.mark.parametrize(
    ("cell", "space"),
    [
        (jl.lstm(H, peephole=True, projection=2), ()),
        (jl.stack(jl.residual(jl.gru(D)), jl.mlstm(4, heads=2)), ()),
        (jl.convlstm(2, (3,)), (6,)),
    ],
    ids=repr,
)
def test_modules_of_our_own_cells_are_taken_in(cell, space):
    params = drawn(cell, np.zeros((*space, D)))
    module, variables = RecurrentCell(cell), to_variables(params)
    assert from_linen(module, variables)[0] == cell
    for rnn in (linen.RNN, RNN):
        both = linen.Bidirectional(rnn(module), rnn(module.clone()))
        weights = {name: {"cell": variables} for name in ("forward_rnn", "backward_rnn")}
        layer, back = from_linen(both, {"params": weights})
        assert repr(layer) == f"bidirectional({cell}, {cell})"
        equal(back, jl.BidirectionalParams(params, params))
    message = r"RecurrentCell's dtype: expected None, or that of all params, .* got bfloat16"
    with pytest.raises(ValueError, match=message):
        from_linen(RecurrentCell(cell, dtype="bfloat16"), variables)


def test_weights_may_be_traced_frozen_or_boxed():
    module, cell = linen.LSTMCell(H), jl.lstm(H)
    boxed = linen.with_partitioning(linen.initializers.ones, ("a", "b"))
    xs = random(np.zeros((T, D)), 0)
    carry = random(module.initialize_carry(jax.random.key(0), (D,)), 1)
    weights = drawn(module, carry, xs[0])["params"]

    def ours(weights):
        return (
            jl.scan(cell, from_linen(module, weights)[1], xs, jl.LSTMCarry(*carry))[1] ** 2
        ).sum()

    theirs = lambda weights: (run_steps(module, weights, carry, xs)[1] ** 2).sum()
    close(jax.jit(jax.grad(ours))(weights), jax.grad(theirs)(weights))
    equal(from_linen(module, freeze(weights))[1], from_linen(module, weights)[1])
    variables = module.clone(kernel_init=boxed).init(jax.random.key(0), carry, xs[0])
    assert (from_linen(module, variables)[1].w_x == 1).all()


def test_an_rnn_built_within_a_module_leaves_the_weights_beside_it():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, xs):
            return linen.RNN(linen.LSTMCell(H, **X64))(xs)

    xs = random(np.zeros((B, T, D)), 0)
    variables = drawn(Model(), xs)
    cell, params = from_linen(linen.LSTMCell(H), variables["params"]["LSTMCell_0"])
    ys = run(cell, params, xs.swapaxes(0, 1)).swapaxes(0, 1)
    close(ys, Model().apply(variables, xs))


def changed(**entries):
    """Weights of a GRU with some entries in place of others, or with none for None."""
    carry, x = jnp.zeros(H), jnp.zeros(D)
    weights = drawn(linen.GRUCell(H), carry, x, dtype=jnp.float32)["params"]
    entries = {name.replace("_", "/"): a for name, a in entries.items()}
    flat = flatten_dict(weights, sep="/") | entries
    return unflatten_dict({name: a for name, a in flat.items() if a is not None}, sep="/")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (5, r"params: expected the mapping that Module.init gives, got int"),
        ({"params": {}, "cache": {}}, r"params: expected no other collections, got cache, params"),
        (changed(hn_bias=None), r"params 'hn/bias': expected an array, got none among"),
        (changed(hz_kernel=np.ones((H, 2))), r"'hz/kernel': expected shape \(5, 5\), got \(5, 2\)"),
        (changed(iz_kernel=np.ones((3, H))), r"'iz/kernel': expected shape \(4, 5\), got \(3, 5\)"),
        (changed(ir_bias=np.ones(H, int)), r"params 'ir/bias': expected floating-point numbers"),
        (changed(hz_bias=np.ones(H)), r"params: expected no other entries, got 'hz/bias'"),
        (
            changed(ir_bias=jnp.ones(H, "bfloat16")),
            r"GRUCell's dtype: expected None, and params of",
        ),
    ],
)
def test_weights_that_do_not_fit_raise_and_name_the_entry(weights, message):
    with pytest.raises(ValueError, match=message):
        from_linen(linen.GRUCell(H), weights)


def test_an_entry_of_an_inner_module_is_named_by_its_path():
    """As where one cell serves both directions, which Flax lets share its weights."""
    with pytest.raises(
        ValueError, match=r"params 'backward_rnn/cell/ir/kernel': expected an array"
    ):
        from_linen(linen.Bidirectional(GRU, GRU), {"forward_rnn": {"cell": changed()}})


conv = lambda **options: linen.ConvLSTMCell(H, (3,), **options)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (linen.GRUCell(H, gate_fn=jax.nn.relu), r"GRUCell's gate_fn: expected its default"),
        (linen.LSTMCell(H, activation_fn=jnp.sin), r"LSTMCell's activation_fn: expected its def"),
        (
            linen.LSTMCell(H, carry_init=linen.initializers.ones),
            r"carry_init: expected its default",
        ),
        (linen.SimpleCell(H, residual=True), r"SimpleCell's residual: expected its default False"),
        (linen.SimpleCell(H, activation_fn=jnp.sin), r"SimpleCell's activation_fn: expected tanh"),
        (linen.MGUCell(H), r"MGUCell's reset_gate: expected False \(with it f comes after"),
        (conv(strides=(2,)), r"ConvLSTMCell's strides: expected None or ones, got \(2,\)"),
        (conv(padding="CIRCULAR"), r"ConvLSTMCell's padding: expected its default 'SAME'"),
        (
            linen.GRUCell(H, dtype="bfloat16"),
            r"^GRUCell's dtype: expected None, and .* got bfloat16, f",
        ),
        (GRU.clone(reverse=True), r"RNN's keep_order: expected True where it has reverse"),
        (GRU.clone(variable_axes={"params": 0}), r"RNN's variable_axes: expected its default"),
        (GRU.clone(variable_broadcast=False), r"RNN's variable_broadcast: expected its default"),
        (
            linen.RNN(RecurrentCell(jl.gru(H))),
            r"params: expected those of gru\(5\), for inputs of some size \(from_variables says",
        ),
        (linen.Dense(H), r"module: expected one of Flax's LSTMCell, .*, got flax"),
        (linen.Sequential([]), r"Sequential's layers: expected at least one RNN or Bid.* got none"),
        (linen.Sequential([GRU, linen.GRUCell(H)]), r"layers_1: expected an RNN, Bidirectional or"),
        (
            linen.Sequential([GRU, GRU.clone(time_major=True)]),
            r"Sequential's time_major: expected the same in all layers, got",
        ),
        (jl.gru(H), r"module: expected one of Flax's LSTMCell, .* got jaxlstm.base.Cell"),
        (linen.Bidirectional(GRU, linen.Dense(H)), r"module: expected an RNN in each direction"),
        (linen.Bidirectional(GRU, GRU, merge_fn=jnp.maximum), r"merge_fn: expected its default or"),
    ],
)
def test_modules_that_no_cell_here_is_raise(module, message):
    rnn = {"cell": changed()}
    inner = {"RNN": rnn, "Bidirectional": {"forward_rnn": rnn, "backward_rnn": rnn}}
    with pytest.raises(ValueError, match=message):
        from_linen(module, inner.get(type(module).__name__, changed()))


@pytest.mark.parametrize(
    ("layer", "params", "message"),
    [
        (jl.lstm(H, peephole=True), None, r"lstm's peephole: expected its default False, as Flax"),
        (jl.lstm(H, projection=2), None, r"lstm's projection: expected its default None, as Flax"),
        (jl.convlstm(H, (3,), peephole=True), None, r"convlstm's peephole: expected its default"),
        (jl.janet(H), None, r"janet's beta: expected 0, as Flax's MGUCell\(reset_gate=False\)"),
        (jl.mgu(H), None, r"layer: expected one of elman\(activation\), .* as Flax has, got mgu"),
        (jl.stack(jl.gru(H), jl.mgu(H)), None, r"layer: expected one of .* got mgu"),
        (jl.bidirectional(jl.gru(H), jl.mgu(H)), None, r"layer: expected one of .* got mgu"),
        (jl.gru(6), jl.init_gru(jax.random.key(0), D, H), r"params: expected those of gru\(6\)"),
        (jl.bidirectional(jl.gru(H), jl.gru(H)), (), r"params: expected BidirectionalParams, got"),
    ],
)
def test_layers_that_flax_has_not_and_params_of_others_raise(layer, params, message):
    x = jnp.ones((6, D) if layer.name.startswith("conv") else D)
    with pytest.raises(ValueError, match=message):
        to_linen(layer, drawn(layer, x) if params is None else params)
