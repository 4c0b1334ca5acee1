import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.cells.ablations import GATES
from tests import papers

KEY = jax.random.key(0)
X = jnp.asarray(papers.normal(3, 4))


def case(name):
    cell = jl.lstm_ablation(5, name)
    params = papers.drawn(cell, X, KEY)
    return cell, params, papers.away_from_zero(KEY, cell.initial_carry(params, X))


def as_lstm(params, carry):
    return jl.LSTMParams(params.w_x, params.w_h, params.b, params.peephole), carry[:2]


@pytest.mark.parametrize(("name", "peephole"), [("np", False), ("fgr", True)])
def test_without_what_is_missing_it_is_the_lstm(name, peephole):
    cell, params, carry = case(name)
    if params.w_gates is not None:
        params = params._replace(w_gates=jnp.zeros_like(params.w_gates))
    theirs, (c, h) = as_lstm(params, carry)
    expected, _ = jl.lstm(5, peephole=peephole).step(theirs, jl.LSTMCarry(c, h), X)
    actual, _ = cell.step(params, carry, X)
    papers.close(tuple(actual[:2]), tuple(expected), 1e-13)


@pytest.mark.parametrize(("name", "gate"), [("nig", 0), ("nfg", 1), ("nog", 2)])
def test_a_missing_gate_is_one_that_stands_open(name, gate):
    cell, params, carry = case(name)
    at = {"nig": 0, "nfg": 1, "nog": 3}[name]
    put = lambda a, axis, value: jnp.insert(a, at, value, axis)
    open_gate = jl.LSTMParams(
        put(params.w_x, 1, 0.0),
        put(params.w_h, 1, 0.0),
        put(params.b, 0, 60.0),
        jnp.insert(params.peephole, gate, 0.0, 0),
    )
    expected, _ = jl.lstm_step(open_gate, jl.LSTMCarry(carry.c, carry.h), X)
    papers.close(tuple(cell.step(params, carry, X)[0][:2]), tuple(expected), 1e-13)


def test_a_coupled_gate_that_lets_nothing_in_keeps_all():
    cell, params, carry = case("cifg")
    params = params._replace(b=params.b.at[0].set(-60))
    np.testing.assert_allclose(cell.step(params, carry, X)[0].c, carry.c, rtol=1e-13)


def test_without_an_activation_function_there_is_no_bound():
    cell, params, carry = case("niaf")
    assert (cell.step(params._replace(b=params.b + 100), carry, X)[0].c > 90).all()
    cell, params, carry = case("noaf")
    carry = carry._replace(c=jnp.full_like(carry.c, 50.0))
    assert (cell.step(params._replace(b=params.b + 100), carry, X)[1] > 45).all()


def test_the_gates_before_are_kept_only_where_they_are_fed_back():
    for name in GATES:
        _, params, carry = case(name)
        assert (carry.gates is None) == (params.w_gates is None) == (name != "fgr")


def test_each_matrix_of_the_gate_recurrence_is_orthogonal():
    w = jl.init_lstm_ablation(KEY, 4, 5, "fgr", dtype=jnp.float64).w_gates
    for source in range(3):
        for target in range(3):
            block = w[source, :, target]
            np.testing.assert_allclose(block.T @ block, np.eye(5), atol=1e-12)


def test_forget_bias_is_the_forget_gate_s():
    for name, names in GATES.items():
        b = jl.init_lstm_ablation(KEY, 4, 5, name, forget_bias=2.0).b
        assert [float(row.max()) for row in b] == [2.0 * (gate == "f") for gate in names]


def test_a_name_that_is_none_raises():
    with pytest.raises(ValueError, match=r"name: expected one of \['nig'.* got 'nope'"):
        jl.lstm_ablation(5, "nope")
    with pytest.raises(ValueError, match="name: expected one of"):
        jl.init_lstm_ablation(KEY, 4, 5, "nope")
    with pytest.raises(ValueError, match="name: expected one of"):
        jl.lstm_ablation_step(*case("np")[1:], X, "nope")


def test_params_and_carries_of_another_variant_raise():
    _, params, carry = case("cifg")
    with pytest.raises(ValueError, match="params: expected the 4 gates of 'np', got 3"):
        jl.lstm_ablation_step(params, carry, X, "np")
    _, params, _ = case("fgr")
    with pytest.raises(ValueError, match=r"carry.gates: expected an array in 'fgr'"):
        jl.lstm_ablation_step(params, carry, X, "fgr")
    with pytest.raises(ValueError, match=r"params.w_gates: expected None in 'niaf'"):
        jl.lstm_ablation_step(params, carry, X, "niaf")
