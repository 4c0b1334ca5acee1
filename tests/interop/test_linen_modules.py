"""Our cells in Flax Linen: in its `nn.RNN` and in ours, against `scan` and Flax's own cells."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, serialization
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError

import jaxlstm as jl
from jaxlstm.interop.linen import RNN, RecurrentCell, flatten_params, to_linen, unflatten_params

T, B, D, H = 7, 3, 4, 5
KEY = jax.random.key(0)
CELLS = {
    "lstm": jl.lstm(H),
    "gru": jl.gru(H),
    "peephole": jl.lstm(H, peephole=True, projection=2),
    "stack": jl.stack(jl.lstm(H), jl.gru(3)),
    "convlstm": jl.convlstm(2, (3, 2)),
    "variational_dropout": jl.variational_dropout(jl.lstm(H), 0.4),
    "learned_start": jl.learned_start(jl.gru(H)),
    "mlstm": jl.mlstm(4, heads=2),
}
X64 = dict(param_dtype=jnp.float64)


def random(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), tree)


def close(actual, expected):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-12)


def equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def shapes(tree):
    return jax.tree.map(lambda a: (a.shape, a.dtype), tree)


def inputs(*space):
    return random(np.zeros((B, T, *space, D)))


def first(tree):
    """Time first, and back."""
    return jax.tree.map(lambda a: a.swapaxes(0, 1), tree)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_in_nn_rnn_and_in_ours_is_a_scan(name):
    """With carries, gradients and one tree of variables, which both draw from a key alike."""
    cell, xs = CELLS[name], inputs(4, 3) if name == "convlstm" else inputs()
    held = RecurrentCell(cell, feature_axes=xs.ndim - 2, **X64)
    theirs, ours = (kind(held, return_carry=True) for kind in (linen.RNN, RNN))
    key = {"params": KEY, "dropout": jax.random.key(1)}
    variables = jax.jit(theirs.init)(key, xs)
    equal(jax.jit(ours.init)(key, xs), variables)
    params = random(unflatten_params(cell, xs[:, 0], variables["params"]["cell"]), 1)

    def of_scan(params, xs):
        return jl.scan(cell, params, first(xs), key=jax.random.key(2))

    def of_module(module):
        def run(params, xs):
            variables = {"params": {"cell": flatten_params(params)}}
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


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_cell_is_flax_s_own_with_the_same_weights(name):
    cell, xs = CELLS[name], inputs()
    params = random(cell.init(KEY, xs[:, 0]))
    module, weights = to_linen(cell, params)
    carry = random(module.initialize_carry(KEY, (B, D)), 1)
    ours = RNN(RecurrentCell(cell))
    for options in ({}, dict(reverse=True), dict(reverse=True, keep_order=True)):
        options = dict(options, initial_carry=carry, return_carry=True)
        expected = linen.RNN(module).apply({"params": {"cell": weights}}, xs, **options)
        actual = ours.apply({"params": {"cell": flatten_params(params)}}, xs, **options)
        close(actual, expected)
        assert jax.tree.structure(actual) == jax.tree.structure(expected)


def test_the_carry_is_as_flax_has_it():
    for cell, module in ((jl.gru(H), linen.GRUCell(H)), (jl.lstm(H), linen.LSTMCell(H))):
        held = RecurrentCell(cell)
        carry, expected = (m.initialize_carry(KEY, (B, D)) for m in (held, module))
        assert shapes(jax.tree.leaves(carry)) == shapes(jax.tree.leaves(expected))
        assert isinstance(carry, tuple) == isinstance(expected, tuple)
        variables = held.init(KEY, expected, jnp.ones((B, D)))
        after, _ = held.apply(variables, expected, jnp.ones((B, D)))
        assert jax.tree.structure(after) == jax.tree.structure(expected)
    assert linen.RNN(held).bind({}).cell.num_feature_axes == 1


@pytest.mark.parametrize("options", [{}, dict(reverse=True), dict(reverse=True, keep_order=True)])
@pytest.mark.parametrize("time_major", [False, True])
def test_lengths(options, time_major):
    """Flax's own where it is right: outputs before the length, carries of lengths above 0."""
    cell, xs, lengths = jl.lstm(H), inputs(), jnp.array([T, 0, 4])
    params = random(cell.init(KEY, xs[0]))
    variables = {"params": {"cell": flatten_params(params)}}
    xs = first(xs) if time_major else xs
    options = dict(options, seq_lengths=lengths, return_carry=True, time_major=time_major)
    expected, zs = linen.RNN(RecurrentCell(cell, **X64)).apply(variables, xs, **options)
    carry, ys = RNN(RecurrentCell(cell, **X64)).apply(variables, xs, **options)
    some = lambda carry: jax.tree.map(lambda a: a[jnp.array([0, 2])], carry)
    close(some(carry), some(expected))
    assert not any(a[1].any() for a in carry)
    before = jnp.arange(T) < lengths[:, None]
    ys, zs = (first(a) if time_major else a for a in (ys, zs))
    close(ys, jnp.where(before[..., None], zs, 0))


def test_what_padding_holds_reaches_no_value_and_no_gradient():
    xs, lengths = inputs(), jnp.array([T, 0, 4])
    padded = jnp.where((jnp.arange(T) < lengths[:, None])[..., None], xs, jnp.nan)
    both = linen.Bidirectional(*(RNN(RecurrentCell(jl.gru(H), **X64)) for _ in range(2)))
    variables = both.init(KEY, xs)
    loss = lambda v, xs: (both.apply(v, xs, seq_lengths=lengths) ** 2).sum()
    equal(jax.grad(loss)(variables, padded), jax.grad(loss)(variables, jnp.nan_to_num(padded)))
    assert jnp.isfinite(jax.grad(loss, 1)(variables, padded)).all()


def test_both_directions():
    xs, lengths = inputs(), jnp.array([T, 0, 4])
    both = jl.bidirectional(jl.gru(H), jl.lstm(2))
    params = random(both.init(KEY, xs[:, 0]))
    rnns = RNN(RecurrentCell(jl.gru(H), **X64)), RNN(RecurrentCell(jl.lstm(2), **X64))
    weights = {"forward_rnn": params.forward, "backward_rnn": params.backward}
    variables = {"params": {name: {"cell": flatten_params(p)} for name, p in weights.items()}}
    options = dict(seq_lengths=lengths, return_carry=True, init_key=KEY)
    carry, ys = linen.Bidirectional(*rnns).apply(variables, xs, **options)
    expected = both.apply(params, first(xs), lengths=lengths)
    close((carry, first(ys)), expected)
    stock = (linen.RNN(rnn.cell) for rnn in rnns)
    close(
        linen.Bidirectional(*stock).apply(variables, xs),
        both.apply(params, first(xs))[1].swapaxes(0, 1),
    )


def test_the_whole_sequence_goes_to_the_fast_implementation():
    cell, xs = jl.lstm(H), inputs()
    ours, stock = (kind(RecurrentCell(cell, **X64)) for kind in (RNN, linen.RNN))
    variables = ours.init(KEY, xs)
    params = unflatten_params(cell, xs[:, 0], variables["params"]["cell"])
    assert jl.explain(cell, params, first(xs))["blocked"] is None
    swept = lambda run: "gated_sweep" in str(jax.make_jaxpr(run)(variables, xs))
    assert [swept(stock.apply), swept(ours.apply)] == [False, True]


def test_noise_comes_from_the_dropout_stream_or_an_init_key_and_from_nowhere_else():
    cell, xs = CELLS["variational_dropout"], inputs()
    model = RNN(RecurrentCell(cell, **X64))
    variables = model.init(KEY, xs)
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
    bare = RNN(RecurrentCell(jl.lstm(H), **X64))  # to evaluate
    equal(bare.apply(variables, xs, rngs={"dropout": KEY}), bare.apply(variables, xs))


def test_a_first_carry_that_is_learned_is_that_of_the_variables():
    held, xs = RecurrentCell(CELLS["learned_start"], **X64), inputs()
    variables = random(RNN(held).init(KEY, xs))
    carry = linen.RNN(held).bind(variables).cell.initialize_carry(KEY, (B, D))
    equal(carry, jnp.broadcast_to(variables["params"]["cell"]["start.h"], (B, H)))
    with pytest.raises(ValueError, match=r"initialize_carry: expected a module bound to params"):
        held.initialize_carry(KEY, (B, D))


@pytest.mark.parametrize("name", ["lstm", "stack"])
def test_half_precision_is_that_of_scan(name):
    """Flax's own OptimizedLSTMCell(dtype=bfloat16) gives float32."""
    cell, xs, half = CELLS[name], inputs().astype(jnp.float32), jnp.bfloat16
    held = RecurrentCell(cell, dtype=half)
    variables = RNN(held).init(KEY, xs)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    params = unflatten_params(cell, xs[:, 0], variables["params"]["cell"])
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
    stock = Tagger(linen.RNN).apply({"params": back}, tokens)
    np.testing.assert_allclose(stock, model.apply({"params": params}, tokens), atol=1e-5)  # float32


def test_transformations_of_flax_and_calls_again():
    xs, held = inputs(), RecurrentCell(jl.gru(D), **X64)
    variables = random(RNN(held).init(KEY, xs))
    loss = lambda model: jax.grad(lambda v: (model.apply(v, xs) ** 2).sum())(variables)
    for lifted in (linen.jit(RNN)(held), linen.remat(RNN)(held)):
        close(loss(lifted), loss(RNN(held)))
    close(loss(linen.RNN(linen.remat(RecurrentCell)(jl.gru(D), **X64))), loss(RNN(held)))
    axes = dict(variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None)
    three = linen.vmap(RNN, **axes, axis_size=3)(held)
    assert three.init(KEY, xs)["params"]["cell"]["b"].shape == (3, 3, D)

    class Twice(linen.Module):
        def setup(self):
            self.rnn = RNN(held)

        def __call__(self, xs):
            return self.rnn(self.rnn(xs))

    twice = Twice().apply({"params": {"rnn": variables["params"]}}, xs)
    close(twice, RNN(held).apply(variables, RNN(held).apply(variables, xs)))
    assert "Total Parameters: 112" in RNN(held).tabulate(KEY, xs)  # (D + D + 1) 3 D + D


@pytest.mark.parametrize("time_major", [False, True])
def test_inputs_and_outputs_may_be_pytrees(time_major):
    times = jnp.cumsum(jnp.ones((B, T)), 1)
    cell, xs = jl.phased_lstm(H), jl.PhasedLSTMInput(inputs(), times)
    model = RNN(RecurrentCell(cell, **X64), time_major=time_major)
    given = first(xs) if time_major else xs
    variables = random(model.init(KEY, given))
    step = jax.tree.map(lambda a: a[:, 0], xs)
    params = unflatten_params(cell, step, variables["params"]["cell"])
    ys = model.apply(variables, given)
    close(ys if time_major else first(ys), jl.scan(cell, params, first(xs))[1])

    cell, xs = jl.attention(jl.gru(H), "general", memory=6, size=H), inputs()
    params = random(cell.init(KEY, xs[:, 0]))
    carry = jl.attend(cell, params, xs[:, 0], random(np.zeros((2, B, 6))))
    model = RNN(RecurrentCell(cell, **X64), time_major=time_major)
    variables = {"params": {"cell": flatten_params(params)}}
    ys = model.apply(variables, first(xs) if time_major else xs, initial_carry=carry)
    close(ys if time_major else first(ys), jl.scan(cell, params, first(xs), carry)[1])


def test_params_go_in_and_out_bit_for_bit_in_their_dtypes():
    cell = jl.stack(jl.learned_start(jl.lstm(H, layer_norm=True)), jl.gru(2))
    x = jnp.ones((B, D), jnp.bfloat16)
    params = cell.init(KEY, x)
    names = ["0.cell.norm.b_c", "0.start.c", "1.b_n"]
    assert set(names) < set(flatten_params(params))
    back = unflatten_params(cell, x, flatten_params(params))
    equal(back, params)
    assert shapes(back) == shapes(params)
    sums = jl.Cell(lambda key, x: jnp.ones(D), None, None)  # params of one array alone
    assert list(flatten_params(sums.init(KEY, x))) == ["params"]
    equal(unflatten_params(sums, x, {"params": jnp.zeros(D)}), jnp.zeros(D))


def gru_arrays(**entries):
    arrays = flatten_params(jl.init_gru(KEY, D, H)) | entries
    return {name: a for name, a in arrays.items() if a is not None}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (5, r"params: expected a mapping of names to arrays"),
        (gru_arrays(b_n=None), r"params 'b_n': expected an array, got none among"),
        (gru_arrays(w_h=jnp.ones((2, 3, H))), r"params 'w_h': expected shape \(5, 3, 5\), got"),
        (gru_arrays(b=jnp.ones((3, H), int)), r"params 'b': expected floating-point numbers"),
        (gru_arrays(p=jnp.ones(H)), r"params: expected no other entries, got 'p'"),
    ],
)
def test_arrays_that_do_not_fit_raise_and_name_the_entry(arrays, message):
    with pytest.raises(ValueError, match=message):
        unflatten_params(jl.gru(H), jnp.ones(D), arrays)


def test_variables_that_do_not_fit_raise_and_name_the_entry():
    apply = lambda **entries: RNN(RecurrentCell(jl.gru(H))).apply(
        {"params": {"cell": gru_arrays(**entries)}}, inputs()
    )
    with pytest.raises(ScopeParamShapeError, match='"w_h"'):
        apply(w_h=jnp.ones((2, 3, H)))
    with pytest.raises(ScopeParamNotFoundError, match='"b_n"'):
        apply(b_n=None)
    with pytest.raises(ValueError, match=r"cell: expected a Cell, got 5"):
        unflatten_params(5, jnp.ones(D), {})


held = RecurrentCell(jl.lstm(H))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (RNN(linen.GRUCell(H)), {}, r"cell: expected a RecurrentCell \(others are for nn.RNN\)"),
        (RNN(held, variable_axes={"params": 0}), {}, r"variable_axes: expected its default \{\}"),
        (RNN(held, variable_broadcast=False), {}, r"variable_broadcast: expected its default 'par"),
        (RNN(held.clone(feature_axes=3)), {}, r"inputs: expected axes of batch, time and 3 of"),
        (RNN(held), {"initial_carry": jnp.ones(H)}, r"carry: expected 2 arrays, as lstm\(5\) has"),
        (RNN(held), {"initial_carry": (jnp.ones(H), jnp.ones(H))}, r"carry: expected one of lstm"),
        (RNN(held), {"seq_lengths": jnp.array([T])}, r"lengths: expected the batch axes of xs"),
        (linen.RNN(held), {"initial_carry": jnp.ones((B, H))}, r"carry: expected 2 arrays, as"),
    ],
)
def test_what_an_rnn_can_not_run_raises(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.init(KEY, inputs(), **options)
