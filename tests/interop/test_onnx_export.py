"""Models written for ONNX, run by ONNX Runtime in float32: 1e-6 of the largest value, or of 1.

Ours are run in float64 with the same weights, so that the difference is its rounding alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.combine.stack import apply_layer
from jaxlstm.interop.onnx import to_onnx

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="ONNX Runtime is not installed: pip install onnxruntime"
)

T, D, H = 7, 3, 4
LENGTHS = np.array([7, 0, 4], np.int32)
B = len(LENGTHS)
PEEPHOLE = jl.lstm(H, peephole=True)
CELLS = [
    jl.lstm(H),
    PEEPHOLE,
    jl.lstm(H, gate_clip=0.7),
    jl.lstm(H, peephole=True, gate_clip=0.7),
    jl.gru(H),
    jl.gru_reset_before(H),
    jl.elman(H),
    jl.elman(H, activation="relu"),
    *(jl.lstm_ablation(H, name) for name in ("nig", "nfg", "nog", "niaf", "noaf", "np", "cifg")),
]
BOTH = [
    jl.bidirectional(PEEPHOLE, PEEPHOLE),
    jl.bidirectional(jl.gru(H), jl.gru(H), combine="sum"),
    jl.bidirectional(jl.lstm(H), jl.gru(2)),
    jl.bidirectional(jl.elman(H), jl.gru_reset_before(H), combine="sum"),
    jl.bidirectional(*[jl.lstm_ablation(H, "niaf")] * 2),
    jl.bidirectional(*[jl.elman(H, activation="relu")] * 2),
]
LAYERS = [
    *CELLS,
    *BOTH,
    jl.backward(jl.lstm(H)),
    jl.stack(jl.lstm(H), jl.gru(2), jl.elman(H)),
    jl.stack(jl.bidirectional(jl.gru(H), jl.gru(H)), jl.stack(jl.backward(jl.lstm(2)), jl.gru(H))),
]


def draw(tree, seed, dtype=np.float32):
    """Normal numbers in a tree of those shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(dtype), tree)


@functools.cache
def params_of(layer, dtype=np.float32):
    x = jax.ShapeDtypeStruct((D,), dtype)
    return draw(jax.eval_shape(lambda: layer.init(jax.random.key(0), x)), 1, dtype)


def ours(layer, params, xs, carry=None, **options):
    """The last carry's leaves and the outputs, in float64."""
    wide = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree)
    last, ys = apply_layer(layer, wide(params), wide(xs), wide(carry), **options)
    return [ys, *jax.tree.leaves(last)]


def carry_of(layer, batch=B, dtype=np.float32):
    """A carry for a layer, and what to feed of it."""
    xs = jax.ShapeDtypeStruct((T, batch, D), dtype)
    run = lambda p, xs: apply_layer(layer, p, xs, None)[0]
    carry = draw(jax.eval_shape(run, params_of(layer, dtype), xs), 2, dtype)
    named = jax.tree_util.tree_leaves_with_path(carry)
    name = lambda path: "carry." + jax.tree_util.keystr(path, simple=True, separator=".")
    return carry, {name(path): a for path, a in named}


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def same(actual, expected, tolerance=1e-6):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(1, np.abs(e).max()))


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_lengths_and_carries(layer):
    model = to_onnx(layer, params_of(layer), lengths=True, carry=True)
    carry, fed = carry_of(layer)
    xs = draw(np.empty((T, B, D)), 3)
    expected = ours(layer, params_of(layer), xs, carry, lengths=LENGTHS)
    for n, length in enumerate(LENGTHS):
        xs[length:, n] = np.nan  # what padding holds counts for nothing
    same(session_of(model).run(None, {"xs": xs, "lengths": LENGTHS, **fed}), expected)


@pytest.mark.parametrize("layer", [PEEPHOLE, BOTH[1], LAYERS[-1]], ids=repr)
def test_one_model_serves_every_size(layer):
    session = session_of(to_onnx(layer, params_of(layer)))
    for time, batch in ((T, B), (1, 1), (11, 2)):
        xs = draw(np.empty((time, batch, D)), 4)
        same(session.run(None, {"xs": xs}), ours(layer, params_of(layer), xs))


@pytest.mark.parametrize("layer", [jl.gru(H), BOTH[0]], ids=repr)
def test_lengths_without_a_carry(layer):
    xs = draw(np.empty((T, B, D)), 3)
    session = session_of(to_onnx(layer, params_of(layer), lengths=True))
    expected = ours(layer, params_of(layer), xs, lengths=LENGTHS)
    same(session.run(None, {"xs": xs, "lengths": LENGTHS}), expected)


def test_streaming_in_two_pieces_is_the_whole():
    layer = jl.stack(PEEPHOLE, jl.gru(2))
    session = session_of(to_onnx(layer, params_of(layer), carry=True))
    names = [o.name for o in session.get_outputs()][1:]
    assert names == ["last.0.c", "last.0.h", "last.1.h"]
    carry, fed = carry_of(layer)
    xs, pieces = draw(np.empty((T, B, D)), 3), []
    for piece in (xs[:3], xs[3:]):
        ys, *last = session.run(None, {"xs": piece, **fed})
        fed = {name.replace("last", "carry"): a for name, a in zip(names, last, strict=True)}
        pieces.append(ys)
    same([np.concatenate(pieces), *last], ours(layer, params_of(layer), xs, carry))


def test_tokens_in_and_logits_out():
    layer, vocabulary = jl.stack(jl.gru(H), jl.bidirectional(jl.lstm(2), jl.lstm(2))), 9
    table, w, b = draw((np.empty((vocabulary, D)), np.empty((H, 5)), np.empty(5)), 5)
    model = to_onnx(layer, params_of(layer), lengths=True, embedding=table, output=(w, b))
    assert [i.name for i in model.graph.input] == ["tokens", "lengths"]
    assert [o.name for o in model.graph.output][:2] == ["logits", "last.0.h"]
    tokens = np.random.default_rng(6).integers(0, vocabulary, (T, B))
    actual = session_of(model).run(None, {"tokens": tokens, "lengths": LENGTHS})
    ys, *last = ours(layer, params_of(layer), table[tokens], lengths=LENGTHS)
    same(actual, [ys @ w + b, *last])
    model = to_onnx(layer, params_of(layer), lengths=True, embedding=table, output=(w, None))
    actual = session_of(model).run(["logits"], {"tokens": tokens, "lengths": LENGTHS})
    same(actual, [ys @ w])


@pytest.mark.parametrize("layer", [PEEPHOLE, BOTH[1], LAYERS[-1]], ids=repr)
def test_half_precision(layer):
    """float16 has 11 bits: 2e-3 for the rounding of weights' products and of each state."""
    params = params_of(layer, np.float16)
    head = draw((np.empty((H, 2)), np.empty(2)), 5, np.float16)
    session = session_of(to_onnx(layer, params, carry=True, lengths=True, output=head))
    carry, fed = carry_of(layer, dtype=np.float16)
    xs = draw(np.empty((T, B, D)), 3, np.float16)
    logits, *last = session.run(None, {"xs": xs, "lengths": LENGTHS, **fed})
    ys, *expected = ours(layer, params, xs, carry, lengths=LENGTHS)
    same([logits, *last], [ys @ head[0] + head[1], *expected], 5e-3)
    assert {a.dtype for a in last} == {np.dtype("float16")}


@pytest.mark.parametrize("opset", [13, 14, 22, 23])
def test_versions_of_the_operators(opset):
    layer = LAYERS[-1]
    model = to_onnx(layer, params_of(layer), lengths=True, carry=True, opset=opset)
    carry, fed = carry_of(layer)
    xs = draw(np.empty((T, B, D)), 3)
    expected = ours(layer, params_of(layer), xs, carry, lengths=LENGTHS)
    same(session_of(model).run(None, {"xs": xs, "lengths": LENGTHS, **fed}), expected)


def test_the_newest_version_of_the_operators_passes_the_checker():
    newest = onnx.defs.onnx_opset_version()
    model = to_onnx(PEEPHOLE, params_of(PEEPHOLE), lengths=True, carry=True, opset=newest)
    assert model.opset_import[0].version == newest


def test_names_and_what_the_model_says_of_itself():
    layer = jl.stack(jl.bidirectional(PEEPHOLE, PEEPHOLE), jl.bidirectional(jl.lstm(H), jl.gru(2)))
    model = to_onnx(layer, params_of(layer), carry=True)
    recurrent = [n for n in model.graph.node if n.op_type in ("LSTM", "GRU", "RNN")]
    names = [n.name for n in recurrent]
    assert names == ["0.lstm", "1.forward.lstm", "1.backward.gru"]
    assert list(recurrent[0].input[1:4]) == ["0.lstm.W", "0.lstm.R", "0.lstm.B"]
    assert recurrent[0].input[7] == "0.lstm.P"
    weights = {i.name: tuple(i.dims) for i in model.graph.initializer}
    assert weights["0.lstm.W"] == (2, 4 * H, D)
    assert "carry.0.forward.c" in [i.name for i in model.graph.input]
    assert (model.producer_name, model.producer_version) == ("jaxlstm", jl.__version__)
    assert {p.key: p.value for p in model.metadata_props} == {"cell": layer.name}
    dims = [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    assert dims == ["time", "batch", H + 2]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (jl.lstm(H, projection=2), r"lstm's projection: expected its default None, as ONNX"),
        (jl.lstm(H, layer_norm=True), r"lstm's layer_norm: expected its default"),
        (jl.lstm(H, cell_clip=3.0), r"lstm's cell_clip: expected its default"),
        (jl.lstm_ablation(H, "fgr"), r"lstm_ablation's name: expected one of cifg, .* as ONNX has"),
        (jl.janet(H), r"layer: expected one of lstm\(peephole, gate_clip\), .* got janet"),
        (jl.zoneout(jl.gru(H), h=0.1), r"layer: expected the bare cell, .* got zoneout"),
        (jl.variational_dropout(jl.gru(H), 0.1), r"layer: expected the bare cell, .*variational"),
        (jl.recurrent_dropout(jl.gru(H), 0.1), r"layer: expected the bare cell, .*recurrent"),
        (jl.expected_zoneout(jl.gru(H), h=0.1), r"layer: expected one of lstm.* got expected_z"),
        (jl.learned_start(jl.gru(H)), r"layer: expected one of lstm.* got learned_start"),
        (jl.stack(jl.gru(H), jl.residual(jl.gru(H))), r"layer: expected .* got residual"),
        (jl.backward(jl.stack(jl.gru(H), jl.gru(H))), r"layer: expected .* got stack"),
        (jl.bidirectional(jl.mgu(H), jl.gru(H)), r"layer: expected .* got mgu"),
    ],
    ids=repr,
)
def test_layers_that_onnx_has_not_raise(layer, message):
    with pytest.raises(ValueError, match=message):
        to_onnx(layer, params_of(layer))


def changed(dtype):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), params_of(jl.gru(H)))


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        (None, {"opset": 12}, r"opset: expected 13 to \d+, the newest of this onnx, got 12"),
        (None, {"opset": 99}, r"opset: expected 13 to .* got 99"),
        (None, {"opset": "17"}, r"opset: expected 13 to .* got '17'"),
        (changed("float64"), {}, r"params: expected float32 or float16, .* got float64"),
        (changed("bfloat16"), {}, r"params: expected float32 or float16, .* got bfloat16"),
        (params_of(PEEPHOLE), {}, r"params: expected those of gru\(4\)"),
        (None, {"embedding": np.ones((5, 2), "f")}, r"embedding: expected shape \(5, 3\) with"),
        (None, {"embedding": np.ones((5, 3))}, r"embedding: expected float32 .* got float64"),
        (None, {"embedding": [[1.0]]}, r"embedding: expected an array of floating-point"),
        (None, {"output": np.ones((H, 2), "f")}, r"output: expected a pair \(w, b\), got ndarray"),
        (
            None,
            {"output": (np.ones((3, 2), "f"), np.ones(2, "f"))},
            r"output: expected w \(4, N\), as the layer has outputs, got shape \(3, 2\)",
        ),
        (
            None,
            {"output": (np.ones((H, 2), "f"), np.ones((1, 2), "f"))},
            r"output: expected shape \(2,\) as w has it, got shape \(1, 2\)",
        ),
    ],
)
def test_arguments_that_do_not_fit_raise(params, options, message):
    with pytest.raises(ValueError, match=message):
        to_onnx(jl.gru(H), params or params_of(jl.gru(H)), **options)
