"""PyTorch's modules and ours with one set of weights: in float64, to 1e-12."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlstm as jl
from jaxlstm.interop import torch as interop
from tests import matrices, papers

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

T, B, D, H = 7, 3, 4, 5
XS = np.random.default_rng(0).normal(size=(T, B, D))
KINDS = {
    "lstm": (torch.nn.LSTM, {}),
    "projection": (torch.nn.LSTM, {"proj_size": 2}),
    "gru": (torch.nn.GRU, {}),
    "tanh": (torch.nn.RNN, {}),
    "relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
}
SHAPES = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True},
    {"bias": False},
]


def make(kind, **options):
    make, more = KINDS[kind]
    torch.manual_seed(3)
    return make(D, H, dtype=torch.float64, **more, **options)


def taken(module, kind):
    return interop.from_torch(module.state_dict(), nonlinearity="relu" if kind == "relu" else None)


def run(layer, params, xs=XS):
    if isinstance(layer, jl.Layer):
        return layer.apply(params, jnp.asarray(xs))[1]
    return jl.scan(layer, params, jnp.asarray(xs))[1]


@pytest.mark.parametrize(("kind", "options"), matrices.crossed(list(KINDS), SHAPES[2:]), ids=str)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_single_precision(kind, options):
    module = make(kind, **options).float()
    layer, params = taken(module, kind)
    expected = module(torch.tensor(XS, dtype=torch.float32))[0].detach().numpy()
    actual = run(layer, params, XS.astype(np.float32))
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_module_taken_in_has_its_outputs(kind, options):
    module = make(kind, **options)
    expected = module(torch.tensor(XS))[0].detach().numpy()
    np.testing.assert_allclose(run(*taken(module, kind)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "options"), matrices.crossed(list(KINDS), SHAPES), ids=str)
def test_params_given_out_come_back_bit_for_bit_and_give_the_module_s_outputs(kind, options):
    module = make(kind, **options)
    layer, like = taken(module, kind)
    params = papers.away_from_zero(jax.random.key(1), like)
    bias = options.get("bias", True)
    if not bias:
        params = params._replace(**{n: 0 * a for n, a in params._asdict().items() if n[0] == "b"})
    weights = interop.to_torch(layer, params, bias=bias)
    module.load_state_dict({name: torch.tensor(a) for name, a in weights.items()}, strict=True)
    actual = module(torch.tensor(XS))[0].detach().numpy()
    np.testing.assert_allclose(run(layer, params), actual, rtol=1e-12, atol=1e-12)
    again, back = taken(module, kind)
    assert again is layer
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes_are_kept(dtype):
    module = torch.nn.GRU(D, H, dtype=getattr(torch, dtype))
    cell, params = interop.from_torch(module.state_dict())
    assert {a.dtype for a in params} == {jnp.dtype(dtype)}
    assert {a.dtype for a in interop.to_torch(cell, params).values()} == {jnp.dtype(dtype)}


def test_a_trained_tagger_gives_the_same_logits_and_can_be_trained_further():
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, 9, (T, 16))
    tags = (np.cumsum(tokens, 0) % 2).astype(np.int64)  # parity so far: the past matters
    torch.manual_seed(4)
    embed, lstm = torch.nn.Embedding(9, D), torch.nn.LSTM(D, 16)
    head = torch.nn.Linear(16, 2)
    parts = torch.nn.ModuleList([embed, lstm, head])
    optimizer = torch.optim.Adam(parts.parameters(), 0.02)
    for _ in range(40):
        logits = head(lstm(embed(torch.tensor(tokens)))[0])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(tags).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    theirs = head(lstm(embed(torch.tensor(tokens)))[0]).detach().numpy()

    cell, rnn = interop.from_torch(lstm.state_dict())
    arrays = {name: jnp.asarray(p.detach().numpy()) for name, p in parts.named_parameters()}
    params = rnn, arrays["0.weight"], arrays["2.weight"], arrays["2.bias"]

    def logits_of(params):
        rnn, table, w, b = params
        return jl.scan(cell, rnn, table[tokens])[1] @ w.T + b

    def loss_of(params):
        return optax.softmax_cross_entropy_with_integer_labels(logits_of(params), tags).mean()

    np.testing.assert_allclose(logits_of(params), theirs, atol=2e-6)  # float32, values near 1
    rule = optax.adam(0.02)

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss_of)(params)
        updates, state = rule.update(gradient, state)
        return value, optax.apply_updates(params, updates), state

    state, losses = rule.init(params), []
    for _ in range(41):
        value, params, state = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.8 * losses[0]


def changed(**entries):
    weights = {name: a.numpy() for name, a in make("lstm").state_dict().items()} | entries
    return {name: a for name, a in weights.items() if a is not None}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, r"state_dict: expected an entry 'weight_ih_l0'"),
        (5, r"state_dict: expected a mapping of names to arrays"),
        (changed(bias_hh_l0=None), r"state_dict 'bias_hh_l0': expected an array, got none among"),
        (
            changed(weight_ih_l0=np.ones((19, D))),
            r"state_dict 'weight_ih_l0': expected 4, 3 or 1 times the hidden size as rows",
        ),
        (
            changed(bias_ih_l0=np.ones(3)),
            r"state_dict 'bias_ih_l0': expected shape \(20,\), got \(3,\)",
        ),
        (
            changed(weight_ih_l0=np.ones((20, D), int)),
            r"state_dict 'weight_ih_l0': expected floating-point numbers, got int64",
        ),
        (changed(weight_ih_l2=np.ones((20, D))), r"state_dict 'weight_ih_l1': expected an array"),
        (changed(head=np.ones(3)), r"state_dict: expected no other entries, got 'head'"),
    ],
)
def test_weights_that_do_not_fit_raise_and_name_the_entry(weights, message):
    with pytest.raises(ValueError, match=message):
        interop.from_torch(weights)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (jl.lstm(H, peephole=True), r"lstm's peephole: expected its default False, as PyTorch"),
        (jl.lstm(H, layer_norm=True), r"lstm's layer_norm: expected its default"),
        (jl.lstm(H, cell_clip=3.0), r"lstm's cell_clip: expected its default"),
        (jl.janet(H), r"layer: expected one of lstm\(projection\), .* got janet"),
        (jl.stack(jl.lstm(H), jl.gru(H)), r"layer: expected layers of one kind"),
        (jl.bidirectional(jl.gru(H), jl.gru(H), combine="sum"), r"layer: expected outputs side"),
    ],
    ids=repr,
)
def test_layers_that_pytorch_has_not_raise(cell, message):
    params = papers.drawn(cell, jnp.ones(D), jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        interop.to_torch(cell, params)


@pytest.mark.parametrize(
    ("cell", "params", "message"),
    [
        (jl.gru(H), jl.init_lstm(jax.random.key(0), D, H), r"params: expected those of gru\(5\)"),
        (jl.lstm(6), jl.init_lstm(jax.random.key(0), D, H), r"params: expected those of lstm\(6\)"),
        (jl.stack(jl.gru(H), jl.gru(H)), (), r"params: expected a tuple of 2"),
        (jl.bidirectional(jl.gru(H), jl.gru(H)), (), r"params: expected BidirectionalParams"),
        (jl.gru(H), {}, r"params: expected those of gru\(5\), got dict"),
        (jl.backward(jl.stack(jl.gru(H))), (), r"layer: expected cells, both directions of them"),
    ],
)
def test_params_of_another_layer_raise(cell, params, message):
    with pytest.raises(ValueError, match=message):
        interop.to_torch(cell, params)


@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "RNNCell"])
def test_a_cell_of_one_step(name):
    torch.manual_seed(5)
    module = getattr(torch.nn, name)(D, H, dtype=torch.float64)
    cell, params = interop.from_torch(module)
    h = torch.zeros(B, H, dtype=torch.float64)
    state = (h, h) if name == "LSTMCell" else h
    expected = []
    for x in torch.tensor(XS):
        state = module(x, state)
        expected.append((state[0] if name == "LSTMCell" else state).detach().numpy())
    np.testing.assert_allclose(run(cell, params), expected, rtol=1e-12, atol=1e-12)
    weights = interop.to_torch(cell, params, cell=True)
    module.load_state_dict({name: torch.tensor(a) for name, a in weights.items()}, strict=True)
    jax.tree.map(np.testing.assert_array_equal, interop.from_torch(module)[1], params)


def test_a_module_of_a_whole_model_is_taken_by_its_prefix():
    model = torch.nn.ModuleDict({"rnn": make("gru"), "head": torch.nn.Linear(H, 2)})
    cell, params = interop.from_torch(model.state_dict(), prefix="rnn.")
    assert cell is jl.gru(H)
    jax.tree.map(np.testing.assert_array_equal, params, interop.from_torch(model["rnn"])[1])
    with pytest.raises(ValueError, match=r"prefix=\.\.\. takes those of one module; there are rnn"):
        interop.from_torch(model.state_dict())


class Negated(torch.nn.LSTM):
    pass


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Negated(D, H), {}, r"source: expected one of torch\.nn\..* got .*Negated"),
        (torch.nn.Linear(D, H), {}, r"source: expected one of torch\.nn\..* or a state dict"),
        (make("tanh"), {"nonlinearity": "relu"}, r"nonlinearity: expected None or 'tanh'"),
        (make("gru"), {"nonlinearity": "relu"}, r"nonlinearity: expected None or None"),
        (
            make("gru").state_dict(),
            {"nonlinearity": "relu"},
            r"nonlinearity: expected None, as only an nn\.RNN has a choice",
        ),
    ],
)
def test_what_is_no_module_of_pytorch_raises(source, options, message):
    with pytest.raises(ValueError, match=message):
        interop.from_torch(source, **options)


def test_double_precision_where_it_is_not_enabled_raises():
    weights = make("gru").state_dict()
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match=r"'weight_ih_l0': expected jax_enable_x64 to be set"),
    ):
        interop.from_torch(weights)


def test_half_of_a_direction_raises():
    weights = make("lstm", num_layers=2, bidirectional=True).state_dict()
    left = {name: a for name, a in weights.items() if not name.endswith("_l1_reverse")}
    with pytest.raises(ValueError, match=r"'weight_ih_l1_reverse': expected an array"):
        interop.from_torch(left)


def test_layers_that_do_not_follow_one_another_raise():
    weights = make("lstm", num_layers=2).state_dict()
    weights["weight_ih_l1"] = torch.ones(4 * H, 3)
    with pytest.raises(ValueError, match=r"'weight_ih_l1': expected shape \(any, 5\), got"):
        interop.from_torch(weights)
    cell = jl.gru(H)
    params = papers.drawn(cell, jnp.ones(D), jax.random.key(0))
    with pytest.raises(ValueError, match=r"params: expected w_x of 5 inputs in gru, as many as"):
        interop.to_torch(jl.stack(cell, cell), (params, params))


def test_what_the_module_can_t_hold_raises():
    cell = jl.lstm(H)
    params = papers.drawn(cell, jnp.ones(D), jax.random.key(0))
    with pytest.raises(ValueError, match=r"bias: expected True, as the biases are not zero"):
        interop.to_torch(cell, params, bias=False)
    with pytest.raises(ValueError, match=r"layer: expected one cell without a projection"):
        interop.to_torch(
            jl.bidirectional(cell, cell), jl.BidirectionalParams(params, params), cell=True
        )


def test_traced_params_raise():
    cell = jl.gru(H)
    params = papers.drawn(cell, jnp.ones(D), jax.random.key(0))
    with pytest.raises(ValueError, match=r"params 'w_x': expected an array, not a traced one"):
        jax.jit(lambda params: interop.to_torch(cell, params))(params)


def test_a_module_tells_its_nonlinearity():
    assert interop.from_torch(make("relu"))[0] is jl.elman(H, activation="relu")
