"""Our cells in Flax Linen: in its `nn.RNN` and in ours, against `scan` and Flax's own cells."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, serialization
from flax.errors import ScopeParamNotFoundError
from flax.traverse_util import flatten_dict, unflatten_dict

import jaxlstm as jl
from jaxlstm.interop.linen import RNN, RecurrentCell, from_variables, to_linen, to_variables
from tests.interop.linen_inputs import (
    KEY,
    X64,
    B,
    D,
    H,
    T,
    close,
    drawn,
    equal,
    first,
    inputs,
    random,
)

CELLS = {
    "peephole": jl.lstm(H, peephole=True, projection=2),
    "stack": jl.stack(jl.lstm(H), jl.gru(3)),
    "convlstm": jl.convlstm(2, (3, 2)),
    "variational_dropout": jl.variational_dropout(jl.lstm(H), 0.4),
    "learned_start": jl.learned_start(jl.gru(H)),
}


def shapes(tree):
    return jax.tree.map(lambda a: (a.shape, a.dtype), tree)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_in_nn_rnn_and_in_ours_is_a_scan(name):
    """With carries, gradients and one tree of variables."""
    cell, xs = CELLS[name], inputs(4, 3) if name == "convlstm" else inputs()
    held = RecurrentCell(cell, **X64)
    theirs, ours = (kind(held, return_carry=True) for kind in (linen.RNN, RNN))
    key = {"params": KEY, "dropout": jax.random.key(1)}
    variables = jax.eval_shape(theirs.init, key, xs)
    assert jax.eval_shape(ours.init, key, xs) == variables
    params = from_variables(cell, xs[:, 0], random(variables)["params"]["cell"])

    def of_scan(params, xs):
        return jl.scan(cell, params, first(xs), key=jax.random.key(2))

    def of_module(module):
        def run(params, xs):
            variables = {"params": {"cell": to_variables(params)}}
            carry, ys = module.apply(variables, xs, init_key=jax.random.key(2))
            return carry, first(ys)

        return run

    @jax.jit
    def all_of(params, xs):
        found = []
        for run in (of_scan, of_module(theirs), of_module(ours)):
            out, pull = jax.vjp(run, params, xs)
            found.append((jax.tree.leaves(out), pull(jax.tree.map(jnp.cos, out))))
        return found

    expected, *found = all_of(params, xs)
    for each in found:
        close(each, expected)


def test_params_are_drawn_by_the_cell_s_own_init_and_alike_in_both():
    cell, xs = CELLS["stack"], inputs()
    stock, ours = (jax.jit(rnn(RecurrentCell(cell)).init)(KEY, xs) for rnn in (linen.RNN, RNN))
    equal(stock, ours)
    first, second = (stock["params"]["cell"][n]["w_h"] for n in ("0", "1"))
    for w in (*first.swapaxes(0, 1), *second.swapaxes(0, 1)):  # each gate's orthogonal
        np.testing.assert_allclose(w @ w.T, np.eye(len(w)), atol=1e-5)  # float32


@pytest.mark.parametrize("cell", [jl.lstm(H), jl.gru(H)], ids=repr)
def test_a_cell_is_flax_s_own_with_the_same_weights(cell):
    xs = inputs()
    params = drawn(cell, xs[:, 0])
    module, weights = to_linen(cell, params)
    carry = random(module.initialize_carry(KEY, (B, D)), 1)
    ours = RNN(RecurrentCell(cell))
    for options in ({}, dict(reverse=True), dict(reverse=True, keep_order=True)):
        options = dict(options, initial_carry=carry, return_carry=True)
        expected = linen.RNN(module).apply({"params": {"cell": weights}}, xs, **options)
        actual = ours.apply({"params": {"cell": to_variables(params)}}, xs, **options)
        close(actual, expected)
        assert jax.tree.structure(actual) == jax.tree.structure(expected)


def test_the_carry_is_as_flax_has_it():
    for cell, module in ((jl.gru(H), linen.GRUCell(H)), (jl.lstm(H), linen.LSTMCell(H))):
        held = RecurrentCell(cell)
        carry, expected = (m.initialize_carry(KEY, (B, D)) for m in (held, module))
        assert shapes(jax.tree.leaves(carry)) == shapes(jax.tree.leaves(expected))
        assert isinstance(carry, tuple) == isinstance(expected, tuple)
        variables = jax.jit(held.init)(KEY, expected, jnp.ones((B, D)))
        after, _ = held.apply(variables, expected, jnp.ones((B, D)))
        assert jax.tree.structure(after) == jax.tree.structure(expected)
    assert linen.RNN(held).bind({}).cell.num_feature_axes == 1


def test_noise_comes_from_the_dropout_stream_or_an_init_key_and_from_nowhere_else():
    cell, xs = CELLS["variational_dropout"], inputs()
    model = RNN(RecurrentCell(cell, **X64))
    variables = drawn(model, xs)
    run = lambda **options: model.apply(variables, xs, **options)
    one, two = (run(rngs={"dropout": jax.random.key(n)}) for n in (1, 2))
    assert (one != two).any()
    equal(run(rngs={"dropout": jax.random.key(1)}), one)
    equal(run(init_key=KEY, rngs={"dropout": jax.random.key(1)}), run(init_key=KEY))
    with pytest.raises(ValueError, match=r"key: lstm\(5\) with variational_dropout draws masks"):
        run()
    zoned = RNN(RecurrentCell(jl.zoneout(jl.lstm(H), h=0.3), **X64))
    run = lambda key: zoned.apply(variables, xs, rngs={"dropout": key})
    equal(run(jax.random.PRNGKey(1)), run(jax.random.key(1)))
    stock = linen.RNN(model.cell)
    of_stock = lambda n, **more: stock.apply(
        variables, xs, rngs={"dropout": jax.random.key(n)}, **more
    )
    for n, expected in ((1, one), (2, two)):
        close(of_stock(n), expected)
        equal(of_stock(n, init_key=KEY), of_stock(n))
    without = stock.apply(variables, xs)
    equal(without, stock.apply(variables, xs, init_key=jax.random.key(0)))
    assert (without != stock.apply(variables, xs, init_key=jax.random.key(1))).any()
    bare = RNN(RecurrentCell(jl.lstm(H), **X64))  # to evaluate
    equal(bare.apply(variables, xs, rngs={"dropout": KEY}), bare.apply(variables, xs))


def test_a_first_carry_that_is_learned_is_that_of_the_variables():
    held, xs = RecurrentCell(CELLS["learned_start"], **X64), inputs()
    variables = drawn(RNN(held), xs)
    carry = linen.RNN(held).bind(variables).cell.initialize_carry(KEY, (B, D))
    equal(carry, jnp.broadcast_to(variables["params"]["cell"]["start"]["h"], (B, H)))
    with pytest.raises(ValueError, match=r"initialize_carry: expected a module bound to params"):
        held.initialize_carry(KEY, (B, D))


def test_half_precision_is_that_of_scan():
    """Flax's own OptimizedLSTMCell(dtype=bfloat16) gives float32."""
    cell, xs, half = CELLS["stack"], inputs().astype(jnp.float32), jnp.bfloat16
    held = RecurrentCell(cell, dtype=half)
    variables = jax.eval_shape(RNN(held).init, KEY, xs)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    variables = jax.tree.map(jnp.float32, random(variables))
    params = from_variables(cell, xs[:, 0], variables["params"]["cell"])
    cast = lambda tree: jax.tree.map(lambda a: a.astype(half), tree)
    expected = jl.scan(cell, cast(params), first(cast(xs)))
    carry, ys = RNN(held).apply(variables, xs, return_carry=True)
    assert ys.dtype == half
    assert shapes(carry) == shapes(expected[0])
    equal((carry, first(ys)), expected)
    carry, zs = linen.RNN(held).apply(variables, xs, return_carry=True)
    assert shapes(carry) == shapes(expected[0])
    np.testing.assert_allclose(np.float32(zs), np.float32(ys), atol=0.03)  # bfloat16's 8 bits


class Tagger(linen.Module):
    rnn: type = RNN

    @linen.compact
    def __call__(self, tokens):
        cell = RecurrentCell(jl.gru(8))
        return linen.Dense(2)(self.rnn(cell)(linen.Embed(9, 8)(tokens)))


def test_a_model_trains_and_is_written_and_read():
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, 9, (16, T))
    tags = np.cumsum(tokens, 1) % 2  # parity so far: the past matters
    model, rule = Tagger(), optax.adam(0.03)
    params = jax.jit(model.init)(KEY, tokens)["params"]
    assert sorted(params) == ["Dense_0", "Embed_0", "RecurrentCell_0"]

    @jax.jit
    def step(params, state):
        def loss(params):
            logits = model.apply({"params": params}, tokens)
            return optax.softmax_cross_entropy_with_integer_labels(logits, tags).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = rule.update(gradient, state)
        return value, optax.apply_updates(params, updates), state

    values, state = [], rule.init(params)
    for _ in range(60):
        value, params, state = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.7 * values[0]
    blank = jax.tree.map(jnp.zeros_like, params)
    back = serialization.from_bytes(blank, serialization.to_bytes(params))
    equal(back, params)
    stock, ours = (jax.jit(m.apply)({"params": back}, tokens) for m in (Tagger(linen.RNN), model))
    np.testing.assert_allclose(stock, ours, atol=1e-5)  # float32


def test_transformations_of_flax_and_calls_again():
    cell = jl.stack(jl.gru(D))  # of nested variables
    xs, held = inputs(), RecurrentCell(cell, **X64)
    variables = drawn(RNN(held), xs)
    loss = lambda model: jax.jit(jax.grad(lambda v: (model.apply(v, xs) ** 2).sum()))(variables)
    expected = loss(RNN(held))
    for lifted in (linen.jit(RNN)(held), linen.remat(RNN)(held)):
        close(loss(lifted), expected)
    close(loss(linen.RNN(linen.remat(RecurrentCell)(cell, **X64))), expected)
    axes = dict(variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None)
    three = linen.vmap(RNN, **axes, axis_size=3)(held)
    assert drawn(three, xs)["params"]["cell"]["0"]["b"].shape == (3, 3, D)

    class Twice(linen.Module):
        def setup(self):
            self.rnn = RNN(held)

        def __call__(self, xs):
            return self.rnn(self.rnn(xs))

    twice = Twice().apply({"params": {"rnn": variables["params"]}}, xs)
    close(twice, RNN(held).apply(variables, RNN(held).apply(variables, xs)))
    assert "Total Parameters: 112" in RNN(held).tabulate(KEY, xs)  # (D + D + 1) 3 D + D


def test_params_go_in_and_out_bit_for_bit_in_their_dtypes():
    cell = jl.stack(jl.learned_start(jl.lstm(H, layer_norm=True)), jl.gru(2))
    x = jnp.ones((B, D), jnp.bfloat16)
    params = jax.tree.map(lambda a: a.astype(x.dtype), drawn(cell, x))
    variables = to_variables(params)
    assert variables["0"]["cell"]["norm"]["b_c"] is params[0].cell.norm.b_c
    assert sorted(variables) == ["0", "1"]
    back = from_variables(cell, x, variables)
    equal(back, params)
    assert shapes(back) == shapes(params)
    sums = jl.Cell(lambda key, x: jnp.ones(D), None, None)  # params of one array alone
    assert list(to_variables(sums.init(KEY, x))) == ["param"]
    equal(from_variables(sums, x, {"param": jnp.zeros(D)}), jnp.zeros(D))


def test_variables_are_a_tree_that_flax_s_own_tools_take_apart_and_optax_masks():
    model, xs = RNN(RecurrentCell(CELLS["stack"], **X64)), inputs()
    variables = drawn(model, xs)
    assert set(variables["params"]["cell"]["1"]) == {"w_x", "w_h", "b", "b_n"}
    equal(unflatten_dict(flatten_dict(variables, sep="."), sep="."), variables)
    back = serialization.from_bytes(
        jax.tree.map(jnp.zeros_like, variables), serialization.to_bytes(variables)
    )
    equal(back, variables)
    decayed = lambda path, _: path[-1].key in ("w_x", "w_h")
    mask = jax.tree.map_with_path(decayed, variables)
    rule = optax.chain(optax.masked(optax.add_decayed_weights(1.0), mask))
    zeros = jax.tree.map(jnp.zeros_like, variables)
    updates = rule.update(zeros, rule.init(variables), variables)[0]["params"]["cell"]["0"]
    equal(updates["w_h"], variables["params"]["cell"]["0"]["w_h"])
    assert not updates["b"].any()


def gru_arrays(**entries):
    arrays = to_variables(jl.init_gru(KEY, D, H)) | entries
    return {name: a for name, a in arrays.items() if a is not None}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (5, r"params: expected a mapping, as to_variables gives it, got int"),
        (gru_arrays(b_n=None), r"params 'b_n': expected an array, got none among"),
        (gru_arrays(w_h=jnp.ones((2, 3, H))), r"params 'w_h': expected shape \(5, 3, 5\), as gru"),
        (gru_arrays(b=jnp.ones((3, H), int)), r"params 'b': expected floating-point numbers"),
        (gru_arrays(p={"q": jnp.ones(H)}), r"params: expected no other entries, got 'p/q'"),
        (gru_arrays(b={"q": jnp.ones(H)}), r"params 'b': expected an array, got none among .*b/q"),
    ],
)
def test_arrays_that_do_not_fit_raise_and_name_the_entry(arrays, message):
    with pytest.raises(ValueError, match=message):
        from_variables(jl.gru(H), jnp.ones(D), arrays)


def test_variables_that_do_not_fit_raise_and_name_the_entry():
    def apply(deep=False, **entries):
        arrays, cell = gru_arrays(**entries), jl.gru(H)
        arrays, cell = ({"0": arrays}, jl.stack(cell)) if deep else (arrays, cell)
        RNN(RecurrentCell(cell)).apply({"params": {"cell": arrays}}, inputs())

    with pytest.raises(ValueError, match=r"params 'w_h': expected shape \(5, 3, 5\), as gru\(5\)"):
        apply(w_h=jnp.ones((2, 3, H)))
    with pytest.raises(ScopeParamNotFoundError, match='"b_n"'):
        apply(b_n=None)
    with pytest.raises(ValueError, match=r"params '0/b_n': expected an array, got none among 0/b,"):
        apply(deep=True, b_n=None)
    with pytest.raises(ValueError, match=r"params '0/w_h': expected shape \(5, 3, 5\), as stack"):
        apply(deep=True, w_h=jnp.ones((2, 3, H)))
    with pytest.raises(ValueError, match=r"cell: expected a Cell, got int 5"):
        from_variables(5, jnp.ones(D), {})


def test_a_step_has_the_axes_that_its_cell_tells():
    picture, plane = jl.convlstm(2, (3, 2)), jl.convlstm(2, (3,))
    known = {
        jl.lstm(H): 1,
        picture: 3,
        jl.residual(jl.variational_dropout(plane, 0.3)): 2,
        jl.stack(jl.zoneout(picture, h=0.1), jl.convlstm(3, (1, 1))): 3,
        jl.learned_start(jl.gru(H)): 1,
    }
    for cell, axes in known.items():
        assert RecurrentCell(cell).num_feature_axes == axes
        assert RecurrentCell(cell, feature_axes=axes).num_feature_axes == axes
        message = rf"feature_axes: expected None or {axes}, as a step of .* has behind .*, got 4"
        with pytest.raises(ValueError, match=message):
            RecurrentCell(cell, feature_axes=4)
    own = plane._replace(name="my_conv(2)")
    assert RecurrentCell(own).num_feature_axes == 1
    assert RecurrentCell(own, feature_axes=2).num_feature_axes == 2


@pytest.mark.parametrize(
    ("cell", "got"),
    [
        (jl.lstm, r"function <function"),
        (8, "int 8"),
        (jl.init_gru(KEY, D, H), r"GRUParams GRUParams\("),
        (jl.bidirectional(jl.gru(H), jl.gru(H)), r"Layer bidirectional\("),
        (linen.GRUCell(H), "GRUCell"),
    ],
)
def test_what_is_no_cell_raises_when_the_module_is_made(cell, got):
    with pytest.raises(ValueError, match=rf"^cell: expected a Cell, got {got}"):
        RecurrentCell(cell)
