"""Our cells in NNX modules, under Flax's RNN and under ours, against `jaxlstm.scan` in float64."""

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
LENGTHS = jnp.array([T, 0, 4])
KEY = jax.random.key(0)
CELLS = {
    "lstm": (jl.lstm(H), D),
    "peephole": (jl.lstm(H, peephole=True, projection=2), D),
    "gru": (jl.gru(H), D),
    "stack": (jl.stack(jl.lstm(H), jl.gru(3)), D),
    "convlstm": (jl.convlstm(2, (3,)), (6, D)),
    "variational_dropout": (jl.variational_dropout(jl.lstm(H), 0.4, outputs=0.3), D),
    "zoneout": (jl.zoneout(jl.gru(H), h=0.4), D),
    "learned_start": (jl.learned_start(jl.gru(H)), D),
    "mlstm": (jl.mlstm(4, heads=2), D),
}


def random(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float64), tree)


def make(kind, **options):
    """Of a kind of cell: the module with random weights, and a batch of sequences."""
    cell, features = CELLS[kind]
    shape = (features,) if isinstance(features, int) else features
    x = jax.ShapeDtypeStruct(shape, jnp.float64)
    params = random(jax.eval_shape(cell.init, KEY, x), 1)
    module = RecurrentCell(cell, features, params=params, **options)
    xs = jnp.asarray(np.random.default_rng(2).normal(size=(B, T, *shape)))
    return module, xs


def close(actual, expected, tolerance=1e-12):
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    for a, e in zip(actual, expected, strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, e = jax.random.key_data(a), jax.random.key_data(e)
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


def gradients(run, module, xs):
    """Carry and outputs, and gradients of all the weights and of the inputs."""

    def loss(module, xs):
        out = run(module, xs)
        floating = [a for a in jax.tree.leaves(out) if jnp.issubdtype(a.dtype, jnp.floating)]
        weighted = lambda a: jnp.sin(a) * jnp.arange(1, a.size + 1).reshape(a.shape)
        return sum(weighted(a).sum() for a in floating), out

    (_, out), found = nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(module, xs)
    return out, found


@pytest.mark.parametrize(
    "kind", matrices.few(sorted({*CELLS} - {"gru", "lstm"}), long=["peephole", "zoneout"])
)  # which the others hold
def test_outputs_carries_and_gradients_are_those_of_scan(kind):
    """The weights' gradients are sums over T and B of terms of up to a hundred: 1e-10."""
    module, xs = make(kind)
    like = module.initialize_carry((B, *xs.shape[2:]), nnx.Rngs(3))
    start = None if kind == "learned_start" else like

    def plain(module, xs):
        structure = jax.tree.structure(module.cell.initial_carry(module.params, xs[:, 0], KEY))
        carry = None if start is None else jax.tree.unflatten(structure, jax.tree.leaves(start))
        carry, ys = jl.scan(module.cell, module.params, jnp.moveaxis(xs, 1, 0), carry)
        return carry, jnp.moveaxis(ys, 0, 1)

    flax = lambda module, xs: nnx.RNN(module, return_carry=True)(xs, initial_carry=start)
    ours = lambda module, xs: RNN(module, return_carry=True)(xs, initial_carry=start)
    all_three = nnx.jit(lambda *a: [gradients(run, *a) for run in (plain, flax, ours)])
    expected, *found = all_three(module, xs)
    assert all(bool(a.any()) for a in jax.tree.leaves(expected[1]))
    for out, gradient in found:
        assert jax.tree.structure(out[0]) == jax.tree.structure(like)
        close(out, expected[0])
        close(gradient, expected[1], 1e-10)


@pytest.mark.parametrize("kind", ["gru", "variational_dropout"])
def test_both_begin_with_the_same_carry(kind):
    """Of noise too: the seed that an `nnx.RNN` has by itself, or that it is given."""
    module, xs = make(kind)
    flax, ours = (rnn(module, return_carry=True) for rnn in (nnx.RNN, RNN))
    for _ in range(2):  # each call with noise of its own
        close(ours(xs), flax(xs))
    close(ours(xs, rngs=nnx.Rngs(8)), flax(xs, rngs=nnx.Rngs(8)))
    flax, ours = (rnn(module, rngs=nnx.Rngs(7)) for rnn in (nnx.RNN, RNN))
    close(ours(xs), flax(xs))


def test_noise_comes_from_the_stream_of_dropout():
    module, xs = make("variational_dropout")
    of = lambda **streams: RNN(module)(xs, rngs=nnx.Rngs(**streams))
    np.testing.assert_array_equal(of(dropout=1, carry=2), of(dropout=1, carry=3))
    np.testing.assert_array_equal(of(carry=2), of(default=2))
    assert (of(dropout=1) != of(dropout=2)).any()
    with pytest.raises(ValueError, match="draws masks and needs a key"):
        RNN(module, rngs=False)(xs)


def test_the_bare_cell_takes_over_the_state_of_the_noisy_one():
    noisy, xs = make("variational_dropout")
    bare = RecurrentCell(jl.lstm(H), D, rngs=nnx.Rngs(5))
    nnx.update(bare, nnx.state(noisy))
    _, expected = jl.scan(jl.lstm(H), noisy.params, jnp.moveaxis(xs, 1, 0))
    close(RNN(bare, rngs=False)(xs), jnp.moveaxis(expected, 0, 1))


@pytest.mark.parametrize("module", [nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell])
def test_flax_s_own_cells_run_fast_too(module):
    module = module(D, H, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    cell, params = interop.from_nnx(module)
    held = RecurrentCell(cell, D, params=params)
    xs = make("gru")[1]
    expected = nnx.RNN(module, return_carry=True)(xs)
    for rnn in (RNN(module, return_carry=True), nnx.RNN(held, return_carry=True)):
        carry, ys = rnn(xs)
        assert isinstance(carry, tuple) == ("LSTM" in type(module).__name__)
        close((carry, ys), expected)


def sweeps(rnn, xs):
    """Whether the fast sweep is in the program of the module."""
    definition, state = nnx.split(rnn)
    return "gated_sweep" in str(jax.make_jaxpr(lambda s: nnx.merge(definition, s)(xs))(state))


@pytest.mark.parametrize("kind", ["lstm", "stack", "Flax"])
def test_the_fast_path_is_taken_and_the_state_is_that_of_flax_s(kind):
    module, xs = make("lstm" if kind == "Flax" else kind)
    if kind == "Flax":
        module = nnx.GRUCell(D, H, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    flax, ours = nnx.RNN(module), RNN(module)
    assert sweeps(ours, xs)
    assert not sweeps(flax, xs)
    assert jax.tree.structure(nnx.state(ours)) == jax.tree.structure(nnx.state(flax))


@pytest.mark.parametrize(
    ("time_major", "keep_order", "lengths"),
    [(True, False, None), (False, False, [T, 2, 4]), (True, True, [T, 2, 4])],
)
def test_order_and_layout_are_as_in_flax(time_major, keep_order, lengths):
    module, xs = make("stack")
    lengths = None if lengths is None else jnp.array(lengths)
    xs = jnp.swapaxes(xs, 0, 1) if time_major else xs
    options = dict(time_major=time_major, reverse=True, keep_order=keep_order, return_carry=True)
    flax, ours = (rnn(module, **options)(xs, seq_lengths=lengths) for rnn in (nnx.RNN, RNN))
    close(ours[0], flax[0])
    valid = jnp.arange(T) < (jnp.full(B, T) if lengths is None else lengths)[:, None]
    valid = (valid.T if time_major else valid)[..., None]
    close(ours[1], jnp.where(valid, flax[1], 0))


def test_ragged_batches_are_right_where_flax_s_are_not():
    module, xs = make("lstm")
    padding = jnp.arange(T) >= LENGTHS[:, None]
    xs = jnp.where(padding[..., None], jnp.nan, xs)
    start = (jnp.ones((B, H)), jnp.full((B, H), 0.5))
    options = dict(initial_carry=start, seq_lengths=LENGTHS, return_carry=True)
    run = lambda module, xs: RNN(module)(xs, **options)
    (carry, ys), found = gradients(run, module, xs)
    assert type(carry) is tuple
    close([a[1] for a in carry], [a[1] for a in start])
    assert not ys[padding].any()
    assert all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(found))
    for n in (0, 2):
        steps, first = slice(LENGTHS[n]), tuple(a[n] for a in start)
        close(ys[n, steps], RNN(module)(xs[n, steps], initial_carry=first))


@pytest.mark.parametrize("inner", [nnx.RNN, RNN])
def test_both_directions(inner):
    (ahead, xs), (back, _) = make("lstm"), make("gru")
    module = nnx.Bidirectional(inner(ahead), inner(back), return_carry=True)
    layer = jl.bidirectional(ahead.cell, back.cell)
    params = jl.BidirectionalParams(ahead.params, back.params)
    lengths = jnp.array([T, 2, 4])
    carry, ys = layer.apply(params, jnp.moveaxis(xs, 1, 0), lengths=lengths)
    found, zs = module(xs, seq_lengths=lengths)
    close(found, carry)
    valid = (jnp.arange(T) < lengths[:, None])[..., None]
    close(jnp.where(valid, zs, 0), jnp.moveaxis(ys, 0, 1))
    assert inner is nnx.RNN or not zs[~valid[..., 0]].any()


def test_several_inputs_and_several_axes_of_batch():
    struct = jax.ShapeDtypeStruct((D,), jnp.float64)
    features = jl.GRUDInput(struct, jax.ShapeDtypeStruct((D,), bool), struct)
    module = RecurrentCell(jl.gru_d(H), features, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(4)
    shape = (2, B, T, D)
    arrays = rng.normal(size=shape), rng.random(shape) < 0.5, np.ones(shape)
    xs = jl.GRUDInput(*map(jnp.asarray, arrays))
    first, lengths = jax.tree.map(lambda a: jnp.moveaxis(a, 2, 0), xs), [LENGTHS, LENGTHS[::-1]]
    lengths = jnp.stack(lengths)
    carry, ys = jl.scan(module.cell, module.params, first, lengths=lengths)
    close(RNN(module, return_carry=True)(xs, seq_lengths=lengths), (carry, jnp.moveaxis(ys, 0, 2)))
    close(RNN(module, time_major=True)(first, seq_lengths=lengths), ys)


def test_a_memory_in_the_carry():
    cell = jl.attention(jl.lstm(H), "general", memory=3, size=6)
    xs = make("lstm")[1].astype(jnp.float32)
    module = RecurrentCell(cell, D, rngs=nnx.Rngs(0))  # its carry holds a mask too:
    carry = jl.attend(cell, module.params, xs[:, 0], jnp.ones((8, B, 3)), lengths=[8, 3, 1])
    _, expected = jl.scan(cell, module.params, jnp.moveaxis(xs, 1, 0), carry)
    close(RNN(module)(xs, initial_carry=carry).output, jnp.moveaxis(expected.output, 0, 1), 1e-6)


def test_dtypes():
    xs = make("lstm")[1].astype(jnp.float32)
    module = RecurrentCell(jl.lstm(H), D, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert {a.dtype for a in jax.tree.leaves(module.params)} == {jnp.dtype("float32")}
    half = lambda tree: jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)
    _, ys = jl.scan(module.cell, half(module.params), half(jnp.moveaxis(xs, 1, 0)))
    for rnn in (nnx.RNN, RNN):
        (c, h), zs = rnn(module, return_carry=True)(xs)
        assert (c.dtype, h.dtype, zs.dtype) == ("float32", "bfloat16", "bfloat16")
        last = (np.asarray(a, np.float32) for a in (zs[:, -1], ys[-1]))
        np.testing.assert_allclose(*last, atol=1e-2)  # of values below 1, in steps of 2e-3
    drawn = RecurrentCell(jl.gru(H), D, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    given = RecurrentCell(jl.gru(H), D, params=drawn.params)
    for module in (drawn, given):
        assert {a.dtype for a in jax.tree.leaves(module.params)} == {jnp.dtype("bfloat16")}
        assert module.initialize_carry((B, D)).dtype == jnp.bfloat16


@pytest.mark.parametrize("size", [np.int64(D), (np.int32(D),)])
def test_sizes_may_be_numpy_s(size):
    module = RecurrentCell(jl.gru(H), size, rngs=nnx.Rngs(0))
    assert module.params.w_x.shape == (D, 3, H)
    assert module.num_feature_axes == 1
    assert module.initialize_carry((B, D)).shape == (B, H)


def test_a_carry_that_is_drawn():
    module = make("lstm")[0]
    c, h = module.initialize_carry((B, D), nnx.Rngs(0), nnx.initializers.normal())
    assert c.shape == h.shape == (B, H)
    assert (c != h).all()
    noisy = make("variational_dropout")[0]
    carry = noisy.initialize_carry((B, D), nnx.Rngs(0), nnx.initializers.ones_init())
    assert (carry.carry.c == 1).all()
    assert (carry.masks.value.inputs != 1).all()


X, SEQUENCE = jnp.ones((B, D)), jnp.ones((B, T, D))


def held(features=D, cell=CELLS["lstm"][0], **options):
    return RecurrentCell(cell, features, **options)


def ones(kind="lstm", **options):
    return lambda: RNN(make(kind)[0])(SEQUENCE, **options)


class Mine(nnx.GRUCell):
    pass


def whole(params):
    return jax.tree.map(lambda a: jnp.ones(a.shape, int), params)


RNGS = nnx.Rngs(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: held(cell=nnx.GRUCell, rngs=RNGS), r"cell: expected a Cell, got"),
        (held, r"rngs: expected nnx.Rngs, as there are no params, got None"),
        (lambda: held(rngs=KEY), r"rngs: expected nnx.Rngs"),
        (lambda: held("4", rngs=RNGS), r"in_features: expected a size, a shape or a tree of"),
        (lambda: held(X, rngs=RNGS), r"in_features: expected .* without batch axes, got shape"),
        (lambda: held(params=jl.init_gru(KEY, D, H)), r"params: .* lstm\(5\), .* got GRUParams"),
        (lambda: held(params=jl.init_lstm(KEY, 9, H)), r"params 'w_x': expected shape \(4, 4, 5\)"),
        (
            lambda: held(rngs=RNGS).set_params(jl.init_lstm(KEY, D, 6)),
            r"params 'w_x': .* lstm\(5\)",
        ),
        (
            lambda: held(cell=CELLS["stack"][0], params=whole(CELLS["stack"][0].init(KEY, X))),
            r"params '0/w_x': expected floating-point numbers, got int",
        ),
        (lambda: held(0, rngs=RNGS), r"in_features: expected a size, a shape or a tree of"),
        (lambda: held(rngs=RNGS)(jnp.ones((B, H)), X), r"carry: expected"),
        (lambda: held(rngs=RNGS)((X, X), X), r"carry.h: expected shape \(3, 5\)"),
        (ones(initial_carry=X), r"carry: expected 2 arrays, as lstm\(5\) has, got 1"),
        (ones("stack", initial_carry=(X, X)), r"carry: expected 3 arrays, as stack\(.* got 2"),
        (ones(initial_carry=(X, X)), r"carry: expected one of lstm\(5\) with shapes"),
        (ones(seq_lengths=jnp.array([8, 0, 0])), r"lengths: expected values in \[0, 7\], got 0 to"),
        (lambda: RNN(make("convlstm")[0])(X), r"inputs: expected axes of batch, time and 2 of"),
        (lambda: RNN(jl.lstm(H)), r"cell: expected one of LSTMCell, .*RecurrentCell, got Cell"),
        (lambda: RNN(nnx.Linear(D, H, rngs=RNGS)), r"cell: expected one of .* got Linear"),
        (lambda: RNN(Mine(D, H, rngs=RNGS)), r"cell: expected one of .* got Mine"),
        (
            lambda: RNN(nnx.GRUCell(D, H, gate_fn=nnx.relu, rngs=RNGS))(SEQUENCE),
            r"gate_fn: expected sigmoid, got relu",
        ),
    ],
)
def test_what_does_not_fit_raises(call, message):
    with pytest.raises(ValueError, match=message):
        call()
