import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
XS = jnp.asarray(papers.normal(6, 3, 4))
OPTIONS = {"lengths": [6, 0, 2], "resets": np.arange(18).reshape(6, 3) % 5 == 4}
FIRST, SECOND = jl.elman(5), jl.elman(2, activation="relu")
DEEP = jl.stack(FIRST, SECOND)
BOTH = jl.bidirectional(FIRST, SECOND)


@jl.cell
def delay():
    """The input of the step before: a cell without an unroll."""

    def initial_carry(params, x, key=None):
        return jnp.zeros(x.shape, x.dtype)

    return lambda key, x: (), initial_carry, lambda params, carry, x: (x, carry)


def test_each_layer_s_outputs_are_the_next_one_s_inputs():
    params = papers.drawn(DEEP, XS[0], KEY)
    carry = papers.away_from_zero(KEY, DEEP.initial_carry(params, XS[0]))
    (first, second), ys = jl.scan(DEEP, params, XS, carry, **OPTIONS)
    expected, hs = jl.scan(FIRST, params[0], XS, carry[0], **OPTIONS)
    papers.close(first, expected, 1e-14)
    papers.close((second, ys), jl.scan(SECOND, params[1], hs, carry[1], **OPTIONS), 1e-14)


def test_params_and_carries_are_tuples_with_an_entry_for_each_layer():
    params = papers.drawn(DEEP, XS[0], KEY)
    assert [p.w_x.shape for p in params] == [(4, 5), (5, 2)]
    carry = DEEP.initial_carry(params, XS[0])
    assert [c.h.shape for c in carry] == [(3, 5), (3, 2)]


def test_layers_of_one_kind_draw_weights_of_their_own():
    first, second = jl.stack(FIRST, FIRST).init(KEY, XS[0])
    assert not np.allclose(first.w_h, second.w_h)


def test_layers_of_one_kind_draw_masks_of_their_own():
    noisy = jl.variational_dropout(jl.elman(4), 0.5)
    deep = jl.stack(noisy, noisy)
    first, second = deep.initial_carry(papers.drawn(deep, XS[0], KEY), XS[0], jax.random.key(3))
    assert (first.masks.value.inputs != second.masks.value.inputs).any()


def test_a_stack_in_a_stack_is_the_stack_of_all():
    nested, flat = jl.stack(FIRST, jl.stack(SECOND, delay())), jl.stack(FIRST, SECOND, delay())
    params = papers.drawn(flat, XS[0], KEY)
    ys = jl.scan(nested, (params[0], params[1:]), XS, **OPTIONS)[1]
    papers.close(ys, jl.scan(flat, params, XS, **OPTIONS)[1], 1e-14)


def test_layers_without_an_unroll_join_those_with_one():
    deep = jl.stack(FIRST, delay())
    params = papers.drawn(deep, XS[0], KEY)
    _, ys = jl.scan(deep, params, XS)
    np.testing.assert_array_equal(ys[1:], jl.scan(FIRST, params[0], XS)[1][:-1])
    assert not ys[0].any()


def test_a_named_implementation_must_serve_every_layer():
    deep = jl.stack(FIRST, delay())
    with pytest.raises(ValueError, match=r"implementation: delay\(\) has no 'blocked'"):
        jl.scan(deep, papers.drawn(deep, XS[0], KEY), XS, implementation="blocked")


def test_explain_answers_for_each_layer():
    deep = jl.stack(FIRST, delay())
    answers = jl.explain(deep, papers.drawn(deep, XS[0], KEY), XS)
    assert list(answers["0: elman(5)"]) == ["native", "blocked", "reference"]
    assert answers["1: delay()"] == {"reference": None}


def test_a_stack_with_a_layer_in_it_is_a_layer():
    deep = jl.stack(FIRST, BOTH, SECOND)
    assert isinstance(deep, jl.Layer)
    params = papers.drawn(deep, XS[0], KEY)
    carry, ys = deep.apply(params, XS, **OPTIONS)
    first, hs = jl.scan(FIRST, params[0], XS, **OPTIONS)
    both, hs = BOTH.apply(params[1], hs, **OPTIONS)
    second, hs = jl.scan(SECOND, params[2], hs, **OPTIONS)
    papers.close((carry, ys), ((first, both, second), hs), 1e-14)


def test_a_stacked_layer_hands_its_key_on():
    noisy = jl.variational_dropout(FIRST, 0.5)
    deep = jl.stack(noisy, jl.bidirectional(noisy, noisy))
    params = papers.drawn(deep, XS[0], KEY)
    run = lambda seed: deep.apply(params, XS, key=jax.random.key(seed))[1]
    np.testing.assert_array_equal(run(1), run(1))
    assert (run(1) != run(2)).any()
    with pytest.raises(ValueError, match=r"key: .* needs a key"):
        deep.apply(params, XS)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "layers: expected at least one Cell or Layer, got none"),
        ((FIRST, 5), "layers: expected Cells and Layers, got 5"),
        ((jl.lstm,), "layers: expected Cells and Layers, got <function lstm"),
    ],
)
def test_layers_that_are_none_raise(layers, message):
    with pytest.raises(ValueError, match=message):
        jl.stack(*layers)


def test_a_cell_that_reads_a_memory_may_come_last():
    reader = jl.attention(jl.gru(5), "dot", memory=5, size=3)
    deep = jl.stack(jl.lstm(4), reader)
    xs = jnp.ones((6, 3, 4))
    params = papers.drawn(deep, xs[0], jax.random.key(0))
    first = jl.lstm(4).initial_carry(params[0], xs[0])
    start = jl.attend(reader, params[1], jnp.ones((3, 4)), jnp.ones((7, 3, 5)))
    _, ys = jl.scan(deep, params, xs, (first, start))
    _, hs = jl.scan(jl.lstm(4), params[0], xs)
    expected = jl.scan(reader, params[1], hs, start)[1].output
    assert float(abs(ys.output - expected).max()) < 1e-6
