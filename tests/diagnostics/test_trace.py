"""What is traced is what the cell computes: against PyTorch, and the outputs made of it again."""

import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.diagnostics import trace
from tests import matrices, papers
from tests.diagnostics import KEY, SAME, B, D, H, T, before, case


def shown(params, c):
    if params.norm is None:
        return jnp.tanh(c)
    c = c - c.mean(-1, keepdims=True)
    c = c / np.sqrt((c**2).mean(-1, keepdims=True) + 1e-5)
    return jnp.tanh(c * params.norm.c + params.norm.b_c)


@pytest.mark.parametrize(
    "options",
    [{}, {"peephole": True}, {"layer_norm": True}, {"projection": 3}, {"gate_clip": 0.7}],
    ids=str,
)
def test_an_lstm_is_made_of_its_gates(options):
    cell = jl.lstm(H, **options)
    params, xs, carry = case(cell)
    seen = trace(cell, params, xs, carry)
    assert sorted(seen.gates) == ["f", "i", "o"]
    assert (list(seen.candidates), sorted(seen.states)) == (["g"], ["c", "h"])
    gates, g, c = seen.gates, seen.candidates["g"], seen.states["c"]
    expected = gates["f"] * before(carry.c, c) + gates["i"] * g
    np.testing.assert_allclose(c, expected, **SAME)
    h = gates["o"] * shown(params, c)
    h = h if params.projection is None else h @ params.projection
    np.testing.assert_allclose(seen.states["h"], h, **SAME)
    last, ys = jl.scan(cell, params, xs, carry)
    np.testing.assert_allclose(seen.ys, ys, **SAME)
    np.testing.assert_allclose(h, ys, **SAME)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **SAME), seen.carry, last)


def keeps(kept, new):
    """How a cell's one state is made of its gates: what it keeps, and what is new."""
    return lambda g, n, h: kept(g) * h + new(g) * n


RECIPES = {
    "gru": keeps(lambda g: g["z"], lambda g: 1 - g["z"]),
    "gru_reset_before": keeps(lambda g: g["z"], lambda g: 1 - g["z"]),
    "janet": keeps(lambda g: g["f"], lambda g: g["i"]),
    "mgu": keeps(lambda g: 1 - g["f"], lambda g: g["f"]),
    "mingru": keeps(lambda g: 1 - g["z"], lambda g: g["z"]),
    "minlstm": keeps(lambda g: g["f"], lambda g: g["i"]),
    "sru": keeps(lambda g: g["f"], lambda g: 1 - g["f"]),
    "lstm_1997": keeps(lambda g: 1, lambda g: g["i"]),
    "mogrifier_lstm": keeps(lambda g: g["f"], lambda g: g["i"]),
}


@pytest.mark.parametrize("name", RECIPES)
def test_other_cells_are_made_of_their_gates(name):
    cell = getattr(jl, name)(H)
    params, xs, carry = case(cell)
    seen = trace(cell, params, xs, carry)
    field = "c" if hasattr(carry, "c") else "h"
    (n,), state = seen.candidates.values(), seen.states[field]
    expected = RECIPES[name](seen.gates, n, before(getattr(carry, field), state))
    np.testing.assert_allclose(state, expected, **SAME)
    np.testing.assert_allclose(seen.ys, jl.scan(cell, params, xs, carry)[1], **SAME)


@pytest.mark.parametrize("name", ["cifg", "nig", "nog", "np", "fgr"])
def test_ablations_are_made_of_their_gates(name):
    cell = jl.lstm_ablation(H, name)
    params, xs, carry = case(cell)
    seen = trace(cell, params, xs, carry)
    g, c = seen.gates, seen.states["c"]
    np.testing.assert_allclose(
        c, g["f"] * before(carry.c, c) + g["i"] * seen.candidates["g"], **SAME
    )
    np.testing.assert_allclose(seen.ys, g["o"] * jnp.tanh(c), **SAME)
    if name == "cifg":
        np.testing.assert_allclose(g["f"], 1 - g["i"], **SAME)


@pytest.mark.parametrize(("make", "heads"), matrices.crossed([jl.slstm, jl.mlstm], [1, 5]))
def test_exponential_gates_are_given_as_logarithms(make, heads):
    cell = make(H, heads=heads)
    params, xs, carry = case(cell)
    seen = trace(cell, params, xs, carry)
    assert sorted(seen.gates) == ["log_f", "log_i", "o"]
    m = before(carry.m, seen.states["m"])  # the stabiliser, which no n of zero interferes with
    expected = np.maximum(seen.gates["log_f"] + m, seen.gates["log_i"])
    np.testing.assert_allclose(seen.states["m"], expected, **SAME)
    np.testing.assert_allclose(seen.ys, jl.scan(cell, params, xs, carry)[1], atol=1e-10, rtol=0)


def test_hyper_lstm_shows_both_lstms():
    cell = jl.hyper_lstm(H, hyper=3, embedding=2)
    params, xs, carry = case(cell)
    seen = trace(cell, params, xs, carry)
    assert sorted(seen.gates) == ["f", "i", "o", "small_f", "small_i", "small_o"]
    assert sorted(seen.candidates) == ["g", "small_g"]
    for small in ("", "small_"):
        c = seen.states[f"{small}c"]
        expected = seen.gates[f"{small}f"] * before(getattr(carry, f"{small}c"), c)
        expected += seen.gates[f"{small}i"] * seen.candidates[f"{small}g"]
        np.testing.assert_allclose(c, expected, **SAME)


def test_a_cell_without_gates_has_states_and_outputs():
    @jl.cell
    def leaky_sum():
        def initial_carry(params, x, key=None):
            return jnp.zeros(x.shape, x.dtype)

        def step(params, carry, x):
            carry = 0.5 * carry + x
            return carry, 2 * carry

        return lambda key, x: (), initial_carry, jax.jit(step)

    seen = trace(leaky_sum(), (), jnp.ones((3, 1)))
    assert (seen.gates, seen.candidates, seen.valid) == ({}, {}, {"carry": None})
    np.testing.assert_allclose(seen.states["carry"][:, 0], [1, 1.5, 1.75], **SAME)
    np.testing.assert_allclose(seen.ys[:, 0], [2, 3, 3.5], **SAME)
    elman = jl.elman(H)
    seen = trace(elman, *case(elman))
    assert (seen.gates, list(seen.states)) == ({}, ["h"])


def test_a_lone_sequence_two_batch_axes_and_pictures():
    cell = jl.lstm(H)
    params, xs, _ = case(cell)
    whole = trace(cell, params, xs)
    lone = trace(cell, params, xs[:, 0])
    np.testing.assert_allclose(lone.gates["o"], whole.gates["o"][:, 0], **SAME)
    pair = trace(cell, params, jnp.stack([xs, xs], 1))
    np.testing.assert_allclose(pair.gates["o"][:, 1], whole.gates["o"], **SAME)
    pictures, frames = jl.convlstm(2, kernel=(3, 3)), jnp.ones((T, B, 4, 5, 1))
    seen = trace(pictures, papers.drawn(pictures, frames[0], KEY), frames)
    assert seen.gates["f"].shape == (T, B, 4, 5, 2)


def test_inputs_of_several_arrays():
    xs = jl.PhasedLSTMInput(jnp.ones((T, B, D)), jnp.arange(1.0 * T * B).reshape(T, B))
    cell = jl.phased_lstm(H)
    params = papers.drawn(cell, jax.tree.map(lambda a: a[0], xs), KEY)
    seen = trace(cell, params, xs, lengths=jnp.array([6, 2, 0]))
    i, k, c = seen.gates["i"], seen.gates["k"], seen.states["c"]
    made = k * (seen.gates["f"] * before(0 * c[0], c) + i * seen.candidates["g"])
    made += (1 - k) * before(0 * c[0], c)
    np.testing.assert_allclose(c, np.where(seen.valid["c"][..., None], made, 0), **SAME)


def test_a_trace_may_be_compiled_mapped_and_differentiated():
    cell = jl.gru(H)
    params, xs, _ = case(cell)
    whole = trace(cell, params, xs)
    mapped = jax.jit(jax.vmap(lambda x: trace(cell, params, x).gates["z"], 1, 1))(xs)
    np.testing.assert_allclose(mapped, whole.gates["z"], **SAME)
    openness = lambda params: trace(cell, params, xs).gates["z"].mean()
    assert jax.grad(openness)(params).b[1].all()


@pytest.mark.parametrize("name", matrices.few(["lstm", "janet", "slstm"], long=["janet", "slstm"]))
def test_the_program_that_trains_is_the_same_without_names(name, monkeypatch):
    cell, again = (getattr(jl, name).__wrapped__(H) for _ in range(2))
    cell, again = jl.Cell(*cell), jl.Cell(*again)
    params, xs, carry = case(cell)
    assert "jaxlstm." in str(jax.make_jaxpr(cell.step)(params, carry, xs[0]))
    loss = lambda cell: lambda params: jl.scan(cell, params, xs, carry)[1].sum()
    lowered = lambda cell: jax.jit(jax.grad(loss(cell))).lower(params).as_text()
    program = lowered(cell)
    module = sys.modules[inspect.getmodule(getattr(jl, name).__wrapped__).__name__]
    monkeypatch.setattr(module, "named", lambda **values: list(values.values()))
    jax.clear_caches()
    assert "jaxlstm." not in str(jax.make_jaxpr(again.step)(params, carry, xs[0]))
    assert lowered(again) == program


def test_errors_say_what_is_wrong():
    cell = jl.lstm(H)
    params, xs, _ = case(cell)
    with pytest.raises(ValueError, match="cell: expected a Cell or a Layer, got 3"):
        trace(3, params, xs)
    with pytest.raises(ValueError, match="lengths: expected"):
        trace(cell, params, xs, lengths=jnp.array([7, 1, 1]))
    apply = lambda params, xs, carry, *, implementation: jl.scan(cell, params, xs, carry)
    with pytest.raises(ValueError, match="hands `implementation` on to each scan"):
        trace(jl.Layer(cell.init, apply), params, xs)


def test_against_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of gates, is not installed")
    cell = jl.lstm(H)
    params, xs, carry = case(cell)
    seen = trace(cell, params, xs, carry)
    tensor = lambda a: torch.tensor(np.asarray(a))
    module = torch.nn.LSTMCell(D, H, dtype=torch.float64)
    flat = lambda a: tensor(a).reshape(a.shape[0], -1).T
    with torch.no_grad():
        module.weight_ih.copy_(flat(params.w_x))
        module.weight_hh.copy_(flat(params.w_h))
        module.bias_ih.copy_(tensor(params.b).reshape(-1))
        module.bias_hh.zero_()
        h, c = tensor(carry.h), tensor(carry.c)
        for t in range(T):
            a = tensor(xs[t]) @ module.weight_ih.T + h @ module.weight_hh.T + module.bias_ih
            i, f, g, o = a.chunk(4, -1)
            h, c = module(tensor(xs[t]), (h, c))
            for name, gate in (("i", i), ("f", f), ("o", o)):
                np.testing.assert_allclose(seen.gates[name][t], torch.sigmoid(gate), **SAME)
            np.testing.assert_allclose(seen.candidates["g"][t], torch.tanh(g), **SAME)
            np.testing.assert_allclose(seen.states["c"][t], c, **SAME)
            np.testing.assert_allclose(seen.states["h"][t], h, **SAME)
