"""Hand values and limits of the smaller families: 1997, reset before, MGU, IndRNN, JANET, SRU."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
X = jnp.asarray(papers.normal(3, 4))


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def case(cell, x=X):
    params = papers.drawn(cell, x, KEY)
    return params, papers.away_from_zero(KEY, cell.initial_carry(params, x))


def test_1997_one_unit_by_hand():
    of = lambda values, *shape: jnp.array(values, jnp.float64).reshape(shape)
    params = jl.LSTM1997Params(
        of([0.5, 2.0, 0.3], 1, 3, 1), of([0.1, -0.4, 0.7], 1, 3, 1), of([0.05, -0.2, 0.4], 3, 1)
    )
    carry, h = jl.lstm_1997_step(
        params, jl.LSTM1997Carry(of([0.8], 1), of([-0.6], 1)), of([1.5], 1)
    )
    i = sigmoid(0.5 * 1.5 - 0.1 * 0.6 + 0.05)
    c = 0.8 + i * (4 * sigmoid(2.0 * 1.5 + 0.4 * 0.6 - 0.2) - 2)
    o = sigmoid(0.3 * 1.5 - 0.7 * 0.6 + 0.4)
    np.testing.assert_allclose(carry.c, [c], rtol=1e-14)
    np.testing.assert_allclose(h, [o * (2 * sigmoid(c) - 1)], rtol=1e-14)


def test_1997_only_adds_up_and_stays_within_its_bounds():
    params, carry = case(jl.lstm_1997(5))
    params = params._replace(b=params.b + 60)
    carry, h = jl.lstm_1997_step(params, carry._replace(c=carry.c * 0 + 100), X)
    np.testing.assert_allclose(carry.c, 102, rtol=1e-12)
    np.testing.assert_allclose(h, 1, rtol=1e-12)


def test_1997_error_carousel_hands_the_gradient_on_undiminished():
    cell, xs = jl.lstm_1997(5), jnp.zeros((200, 4))
    params = jax.tree.map(jnp.zeros_like, papers.drawn(cell, xs[0], KEY))
    last = lambda c: jl.scan(cell, params, xs, jl.LSTM1997Carry(c, jnp.zeros(5)))[0].c.sum()
    np.testing.assert_array_equal(jax.grad(last)(jnp.ones(5)), jnp.ones(5))


def test_resets_before_and_after_the_product_differ_only_where_h_is_mixed():
    params, carry = case(jl.gru_reset_before(5))
    after = jl.GRUParams(*params, jnp.zeros(5))
    same = params._replace(w_h=params.w_h.at[:, 2].set(jnp.diag(params.b[0])))
    actual, _ = jl.gru_reset_before_step(same, carry, X)
    expected, _ = jl.gru_step(after._replace(w_h=same.w_h), jl.GRUCarry(carry.h), X)
    np.testing.assert_allclose(actual.h, expected.h, rtol=1e-13)
    actual, _ = jl.gru_reset_before_step(params, carry, X)
    expected, _ = jl.gru_step(after, jl.GRUCarry(carry.h), X)
    assert float(jnp.abs(actual.h - expected.h).max()) > 1e-3


def test_mgu_keeps_all_with_its_gate_shut_and_forgets_all_with_it_open():
    params, carry = case(jl.mgu(5))
    gate = lambda b: params._replace(b=params.b.at[0].set(b))
    np.testing.assert_allclose(jl.mgu_step(gate(-60.0), carry, X)[1], carry.h, rtol=1e-12)
    forgotten = jl.ElmanParams(params.w_x[:, 1], params.w_h[:, 1], params.b[1])
    expected = jl.elman_step(forgotten, jl.ElmanCarry(carry.h), X)[1]
    np.testing.assert_allclose(jl.mgu_step(gate(60.0), carry, X)[1], expected, rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_indrnn_is_an_elman_network_with_a_diagonal_matrix(activation):
    params, carry = case(jl.indrnn(5, activation=activation))
    theirs = jl.ElmanParams(params.w_x, jnp.diag(params.w_h), params.b)
    actual, _ = jl.indrnn_step(params, carry, X, activation)
    expected, _ = jl.elman_step(theirs, jl.ElmanCarry(carry.h), X, activation)
    np.testing.assert_allclose(actual.h, expected.h, rtol=1e-13)
    drawn = jl.init_indrnn(KEY, 4, 500).w_h
    assert 0 <= drawn.min() < 0.02
    assert 0.98 < drawn.max() <= 1


def test_janet_without_its_lag_is_a_coupled_gate():
    params, carry = case(jl.janet(5))
    actual = jl.janet_step(params, carry, X, beta=0.0)[1]
    cell = jl.lstm_ablation(5, "cifg")
    at = jnp.array([0, 1, 1])  # the third is the output gate, stood open
    flip = jnp.array([-1.0, 1.0, 0.0])[:, None]
    theirs = papers.drawn(cell, X, KEY)._replace(
        w_x=params.w_x[:, at] * flip,
        w_h=params.w_h[:, at] * flip,
        b=params.b[at] * flip + jnp.array([0, 0, 60.0])[:, None],
        peephole=None,
    )
    carry = jl.LSTMAblationCarry(carry.h, carry.h, None)
    np.testing.assert_allclose(actual, cell.step(theirs, carry, X)[0].c, rtol=1e-12)


def test_sru_with_its_gates_shut_and_open():
    cell = jl.sru(4)
    params, carry = case(cell)
    assert params.w_skip is None
    gate = lambda f, r: params._replace(b=jnp.stack([jnp.full(4, f), jnp.full(4, r)]))
    kept, through = cell.step(gate(60.0, -60.0), carry, X)
    np.testing.assert_allclose(kept.c, carry.c, rtol=1e-12)
    np.testing.assert_allclose(through, math.sqrt(3) * X, rtol=1e-12)
    new, shown = cell.step(gate(-60.0, 60.0), carry, X)
    np.testing.assert_allclose(new.c, X @ params.w_x[:, 1], rtol=1e-12)
    np.testing.assert_allclose(shown, new.c, rtol=1e-12)


CELLS = [
    jl.lstm_1997(5), jl.gru_reset_before(5), jl.mgu(5), jl.indrnn(5), jl.janet(5), jl.sru(5),
    jl.lstm_ablation(5, "cifg"), jl.lstm_ablation(5, "fgr"),
]  # fmt: skip


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_half_precision_stays_half_precision(cell):
    xs = jnp.asarray(papers.normal(6, 3, 4), jnp.bfloat16)
    params = papers.drawn(cell, xs[0], KEY)
    start = cell.initial_carry(params, xs[0])
    carry, ys = jl.scan(cell, params, xs)
    assert {a.dtype for a in (*jax.tree.leaves(params), ys)} == {jnp.dtype(jnp.bfloat16)}
    assert [a.dtype for a in jax.tree.leaves(carry)] == [a.dtype for a in jax.tree.leaves(start)]
    assert getattr(carry, "c", jnp.float32(0)).dtype == jnp.float32
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    np.testing.assert_allclose(ys.astype(float), jl.scan(cell, *wide)[1], atol=0.04)


@pytest.mark.parametrize("make", [jl.lstm_1997, jl.gru_reset_before, jl.mgu, jl.indrnn, jl.janet])
def test_shapes_that_do_not_fit_raise(make):
    with pytest.raises(ValueError, match="hidden: expected a positive integer, got 0"):
        make(0)
    cell = make(5)
    params, carry = case(cell)
    with pytest.raises(ValueError, match=r"x: expected 4 features .* got shape \(3, 7\)"):
        cell.step(params, carry, jnp.ones((3, 7)))
    with pytest.raises(ValueError, match=r"carry.h: expected shape \(2, 5\) .* got shape \(3, 5\)"):
        cell.step(params, carry, X[:2])


def test_names_that_are_none_raise():
    with pytest.raises(ValueError, match=r"activation: expected one of .*'relu'.* got 'gelu'"):
        jl.indrnn(5, activation="gelu")
    with pytest.raises(ValueError, match=r"carry.c: expected shape \(2, 5\)"):
        jl.sru_step(*case(jl.sru(5)), X[:2])


def test_attention_around_a_wider_state_stays_in_half_precision():
    cell = jl.attention(jl.mingru(5), "additive", memory=6, size=3)
    xs = jnp.ones((4, 2, 4), jnp.bfloat16)
    params = papers.drawn(cell, xs[0], KEY)
    carry = jl.attend(cell, params, xs[0], jnp.ones((7, 2, 6), jnp.bfloat16))
    _, ys = jl.scan(cell, params, xs, carry)
    assert (ys.output.dtype, ys.context.dtype) == (jnp.bfloat16, jnp.bfloat16)
