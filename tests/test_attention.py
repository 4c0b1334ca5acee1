import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import matrices, papers

KEY = jax.random.key(0)
T, S, B, D, H, M, A = 6, 7, 3, 4, 5, 2, 3
KINDS = ("additive", "dot", "general", "concat", "location")
OFTEN = matrices.few(KINDS, long=("general", "concat"))  # which score as "dot" and "additive" do
LENGTHS = np.array([7, 0, 4])


def made(kind, bare=None, **options):
    """An attention cell, params away from their initial values, inputs and a memory."""
    features = H if kind == "dot" else M
    options |= {"positions": S} if kind == "location" else {}
    cell = jl.attention(bare or jl.gru(H), kind, memory=features, size=A, **options)
    xs, memory = papers.normal(T, B, D), papers.normal(S, B, features)
    return cell, papers.drawn(cell, xs[0], KEY), jnp.asarray(xs), jnp.asarray(memory)


def run(cell, params, xs, memory, resets=None, **options):
    carry = jl.attend(cell, params, xs[0], memory, **options)
    return jl.scan(cell, params, xs, carry, resets=resets)


def softmax(*e):
    return [math.exp(v) / sum(map(math.exp, e)) for v in e]


def lone(kind, **weights):
    """An attention cell of single units, and a memory of 0.5 and -1.2."""

    def step(params, carry, x):
        h = 0.5 * carry.h + x.sum(-1, keepdims=True)
        return jl.ElmanCarry(h), h

    initial = lambda params, x, key=None: jl.ElmanCarry(jnp.array([0.3]))
    bare = jl.Cell(lambda key, x: (), initial, step)
    positions = 3 if kind == "location" else None
    cell = jl.attention(bare, kind, memory=1, size=1, positions=positions)
    of = lambda name, *shape: jnp.array(weights[name]).reshape(shape) if name in weights else None
    params = jl.AttentionParams((), of("w_q", 1, -1), of("w_k", 1, 1), of("v", 1), of("w_c", 2, 1))
    x = jnp.array([0.7])
    carry = jl.attend(cell, params, x, jnp.array([[0.5], [-1.2]]))
    carry = carry if carry.fed is None else carry._replace(fed=jnp.array([0.2]))
    carry, y = cell.step(params, carry, x)
    return carry.carry.h[0], y.output[0], y.weights, y.context[0], carry.fed


def test_bahdanau_s_by_hand_reads_with_the_state_before_the_step():
    h, output, weights, context, fed = lone("additive", w_q=1.5, w_k=-0.8, v=2.0)
    expected = softmax(*(2 * math.tanh(1.5 * 0.3 - 0.8 * m) for m in (0.5, -1.2)))
    np.testing.assert_allclose(weights, expected, rtol=1e-14)
    np.testing.assert_allclose(context, 0.5 * expected[0] - 1.2 * expected[1], rtol=1e-14)
    np.testing.assert_allclose(h, 0.5 * 0.3 + 0.7 + context, rtol=1e-14)
    assert output == h
    assert fed is None


@pytest.mark.parametrize(
    ("kind", "weights", "score"),
    [
        ("dot", {}, lambda h, m, s: h * m),
        ("general", {"w_k": 1.7}, lambda h, m, s: 1.7 * h * m),
        (
            "concat",
            {"w_q": 1.5, "w_k": -0.8, "v": 2.0},
            lambda h, m, s: 2 * math.tanh(1.5 * h - 0.8 * m),
        ),
        ("location", {"w_q": [0.4, -0.9, 3.0]}, lambda h, m, s: [0.4, -0.9, 3.0][s] * h),
    ],
)
def test_luong_s_by_hand_reads_with_the_state_after_the_step(kind, weights, score):
    h, output, actual, context, fed = lone(kind, w_c=[0.6, -0.5], **weights)
    np.testing.assert_allclose(h, 0.5 * 0.3 + 0.7 + 0.2, rtol=1e-14)
    expected = softmax(*(score(1.05, m, s) for s, m in enumerate((0.5, -1.2))))
    np.testing.assert_allclose(actual, expected, rtol=1e-14)
    np.testing.assert_allclose(context, 0.5 * expected[0] - 1.2 * expected[1], rtol=1e-14)
    np.testing.assert_allclose(output, math.tanh(0.6 * context - 0.5 * h), rtol=1e-14)
    assert fed[0] == output


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_masked_has_no_weight_and_no_gradient_whatever_it_holds(kind):
    cell, params, xs, memory = made(kind)
    mask = np.random.default_rng(0).uniform(size=(S, B)) < 0.7
    seen = mask & (np.arange(S)[:, None] < LENGTHS)

    def loss(params, memory):
        _, ys = run(cell, params, xs, memory, lengths=LENGTHS, mask=mask)
        return sum(jnp.sin(a).sum() for a in ys), ys

    derived = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    gradients, ys = derived(params, jnp.where(seen[..., None], memory, jnp.nan))
    papers.close((gradients, ys), derived(params, memory), 1e-15)
    assert not gradients[1][~seen].any()
    assert gradients[1][seen].all()
    weights = np.moveaxis(ys.weights, -1, 1)
    assert not weights[:, ~seen].any()
    np.testing.assert_allclose(weights.sum(1), np.broadcast_to(seen.any(0), (T, B)), rtol=1e-14)
    assert not ys.context[:, 1].any()  # of the memory of length zero


@pytest.mark.parametrize("kind", OFTEN)
def test_padding_of_a_memory_changes_nothing(kind):
    cell, params, xs, memory = made(kind)
    _, padded = run(cell, params, xs, memory, lengths=np.full(B, 4))
    _, short = run(cell, params, xs, memory[:4])
    papers.close(padded._replace(weights=padded.weights[..., :4]), short, 1e-14)


def test_a_large_product_picks_one_position():
    cell, params, xs, memory = made("dot", feeding=False)
    _, ys = run(cell, params, xs, 1e4 * memory)
    _, outputs = jl.scan(cell.unroll.bare, params.bare, xs)
    best = np.einsum("tbh,sbh->tbs", outputs, memory).argmax(-1)
    np.testing.assert_allclose(ys.weights, np.eye(S)[best], atol=1e-12)
    np.testing.assert_allclose(ys.context, 1e4 * memory[best, np.arange(B)], rtol=1e-8)


def test_location_s_weights_do_not_depend_on_what_the_memory_holds():
    cell, params, xs, memory = made("location", feeding=False)
    ys, others = (run(cell, params, xs, m)[1] for m in (memory, memory + 1))
    papers.close(ys.weights, others.weights, 0)
    np.testing.assert_allclose(others.context, ys.context + 1, rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_the_memory_times_w_k_computed_before_the_run(kind):
    cell, params, xs, memory = made(kind)
    kept = jl.attend(cell, params, xs[0], memory).memory.value
    np.testing.assert_array_equal(kept.values, np.moveaxis(memory, 0, 1))
    if kind in ("dot", "location"):
        assert kept.keys is None
    else:
        expected = np.einsum("sbm,mk->bsk", memory, params.w_k)
        np.testing.assert_allclose(kept.keys, expected, rtol=1e-13)


@pytest.mark.parametrize("kind", ["additive", "general"])
def test_a_reset_leaves_the_memory_and_begins_the_rest_anew(kind):
    cell, params, xs, memory = made(kind)
    resets = np.zeros((T, B), bool)
    resets[4] = True
    carry, ys = run(cell, params, xs, memory, resets, lengths=LENGTHS)
    _, head = run(cell, params, xs[:4], memory, lengths=LENGTHS)
    last, tail = run(cell, params, xs[4:], memory, lengths=LENGTHS)
    whole = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), head, tail)
    papers.close((carry[:2], ys), (last[:2], whole), 1e-14)
    papers.close(carry.memory.value[:2], last.memory.value[:2], 0)


def test_a_decoder_begins_with_an_encoder_s_state_and_reads_its_outputs():
    encoder, xs = jl.lstm(H), jnp.asarray(papers.normal(S, B, D))
    last, memory = jl.scan(encoder, papers.drawn(encoder, xs[0], KEY), xs, lengths=LENGTHS)
    decoder = jl.attention(jl.lstm(H), "general", memory=H, size=A)
    params = papers.drawn(decoder, xs[0], KEY)
    carry = jl.attend(decoder, params, xs[0], memory, lengths=LENGTHS, carry=last)
    papers.close(carry.carry, last, 0)
    assert not carry.fed.any()
    assert jl.scan(decoder, params, xs, carry)[1].output.shape == (S, B, A)


def test_additive_reads_with_the_last_layer_of_a_stack():
    bare = jl.stack(jl.gru(2), jl.gru(H))
    cell, params, xs, memory = made("additive", bare)
    assert params.w_q.shape == (H, A)
    carry = jl.attend(cell, params, xs[0], memory)
    of = lambda n: carry._replace(
        carry=tuple(jl.GRUCarry(c.h + (i == n)) for i, c in enumerate(carry.carry))
    )
    weights = jax.jit(lambda carry: cell.step(params, carry, xs[0])[1].weights)
    np.testing.assert_array_equal(weights(of(0)), weights(carry))
    assert (weights(of(1)) != weights(carry)).all()


def test_a_cell_inside_that_draws_gets_the_key():
    cell, params, xs, memory = made("additive", jl.variational_dropout(jl.gru(H), 0.5))
    carry = jl.attend(cell, params, xs[0], memory, key=KEY)
    assert carry.carry.masks.value.inputs.shape == (B, D + M)
    assert jl.scan(cell, params, xs, carry)[1].output.shape == (T, B, H)
    with pytest.raises(ValueError, match="draws masks and needs a key"):
        jl.attend(cell, params, xs[0], memory)


def test_without_feeding_the_bare_cell_keeps_its_implementations():
    cell, params, xs, _ = made("general", feeding=False)
    assert jl.explain(cell, params, xs) == jl.explain(jl.gru(H), params.bare, xs)
    assert made("general")[0].unroll is None


def test_lengths_that_can_t_be_looked_at_count_as_the_nearest_one_in_range():
    cell, params, xs, memory = made("general")
    of = jax.jit(lambda lengths: jl.attend(cell, params, xs[0], memory, lengths=lengths))
    mask = of(jnp.array([9, -1, 4])).memory.value.mask
    np.testing.assert_array_equal(mask, np.arange(S) < LENGTHS[:, None])


@pytest.mark.parametrize("kind", OFTEN)
def test_half_precision_stays_half_precision_but_for_the_weights(kind):
    cell, *wide = made(kind, jl.lstm(H))
    params, xs, memory = jax.tree.map(lambda a: a.astype(jnp.bfloat16), wide)
    carry, ys = run(cell, params, xs, memory)
    dtypes = {a.dtype for a in (ys.output, ys.context, carry.carry.h, *carry.memory.value[:1])}
    assert dtypes == {jnp.dtype(jnp.bfloat16)}
    assert (ys.weights.dtype, carry.carry.c.dtype) == (jnp.float32, jnp.float32)
    _, expected = run(cell, *jax.tree.map(lambda a: a.astype(float), (params, xs, memory)))
    for a, e in zip(ys, expected, strict=True):
        np.testing.assert_allclose(a.astype(float), e, atol=0.05)  # 8 bits, fed back six times


def test_weights_and_contexts_are_torch_s_scaled_dot_products():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    cell, params, xs, memory = made("general", feeding=False)
    lengths = np.array([7, 1, 4])  # of none it makes NaN
    seen = np.arange(S) < lengths[:, None]
    _, ys = run(cell, params, xs, memory, lengths=lengths)
    _, h = jl.scan(jl.gru(H), params.bare, xs)
    of = lambda a: torch.tensor(np.asarray(a))
    queries, values = of(jnp.moveaxis(h, 0, 1)), of(jnp.moveaxis(memory, 0, 1))
    keys, mask = values @ of(params.w_k), of(seen)[:, None]
    attention = torch.nn.functional.scaled_dot_product_attention
    eye = torch.eye(S).double().expand(B, S, S)  # whose weighted sums are the weights
    for actual, summed in ((ys.context, values), (ys.weights, eye)):
        expected = attention(queries, keys, summed, mask, scale=1.0)
        np.testing.assert_allclose(jnp.moveaxis(actual, 0, 1), expected, atol=1e-13)


def test_a_run_without_a_memory_raises():
    cell, params, xs, _ = made("general")
    with pytest.raises(ValueError, match="carry: expected one made by attend, got one without"):
        jl.scan(cell, params, xs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bare": "gru"}, "bare: expected a Cell, got 'gru'"),
        ({"kind": "cosine"}, "kind: expected one of 'additive', 'dot', .*, got 'cosine'"),
        ({"memory": 0}, "memory: expected a positive integer, got 0"),
        ({"size": 2.0}, "size: expected a positive integer, got 2.0"),
        ({"positions": 4}, "positions: expected None for 'general', got 4"),
        ({"kind": "location"}, "positions: expected a positive integer, got None"),
        ({"kind": "additive", "feeding": False}, "feeding: expected True for 'additive', got Fa"),
    ],
)
def test_arguments_that_do_not_fit_the_kind_raise(change, message):
    given = {"bare": jl.gru(H), "kind": "general", "memory": M, "size": A} | change
    with pytest.raises(ValueError, match=message):
        jl.attention(**given)


def test_cells_and_inputs_that_do_not_fit_raise():
    cell = jl.attention(jl.gru(H), "dot", memory=H + 1, size=A)
    with pytest.raises(ValueError, match="memory: expected 5 for 'dot', as bare's output, got 6"):
        cell.init(KEY, jnp.ones(D))
    with pytest.raises(ValueError, match="x: expected an array of floating-point numbers"):
        cell.init(KEY, jnp.ones(D, int))
    bare = jl.Cell(lambda key, x: (), lambda params, x, key=None: x, lambda params, c, x: (c, c))
    with pytest.raises(ValueError, match="bare: expected a cell whose carry has a field h, got"):
        jl.attention(bare, "additive", memory=M, size=A).init(KEY, jnp.ones(D))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": jl.gru(H)}, r"cell: expected one made by attention, got gru\(5\)"),
        ({"memory": np.ones((S, B, M), int)}, "memory: expected an array of floating-point"),
        ({"memory": np.ones((S, B, M + 1))}, r"memory: expected shape \(S, 3, 2\) with S > 0, got"),
        ({"memory": np.ones((0, B, M))}, r"memory: expected shape \(S, 3, 2\) with S > 0, got"),
        ({"lengths": [1.0, 2, 3]}, r"lengths: expected integers of shape \(3,\)"),
        ({"lengths": [1, 2]}, r"lengths: expected integers of shape \(3,\)"),
        ({"lengths": [1, 2, 8]}, r"lengths: expected values in \[0, 7\], got \[1 2 8\]"),
        ({"lengths": [1, -2, 3]}, r"lengths: expected values in \[0, 7\], got \[ 1 -2  3\]"),
        ({"mask": np.ones((S, B))}, r"mask: expected booleans of shape \(7, 3\), as memory has"),
        ({"mask": np.ones((B, S), bool)}, r"mask: expected booleans of shape \(7, 3\), as mem"),
    ],
)
def test_memories_that_do_not_fit_raise(change, message):
    cell, params, xs, memory = made("general")
    given = {"cell": cell, "params": params, "x": xs[0], "memory": memory} | change
    given["params"] = params.bare if given["cell"] is not cell else params
    with pytest.raises(ValueError, match=message):
        jl.attend(**given)


def test_memories_that_do_not_fit_a_step_raise():
    cell, params, xs, memory = made("location")
    carry = jl.attend(cell, params, xs[0], memory)
    with pytest.raises(ValueError, match=r"carry.memory: expected shape \(2, 7, 2\) as x has it"):
        cell.step(params, carry, xs[0, :2])
    carry = jl.attend(cell, params, xs[0], jnp.concatenate([memory, memory]))
    with pytest.raises(ValueError, match=r"memory: expected at most 7 positions, as params.w_q"):
        cell.step(params, carry, xs[0])
