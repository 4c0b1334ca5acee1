import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
BARE = jl.elman(5)
XS = jnp.asarray(papers.normal(6, 3, 4))
PARAMS = papers.drawn(BARE, XS[0], KEY)
RATES = {"recurrent": 0.25, "outputs": 0.5}
NOISY = jl.variational_dropout(BARE, 0.3, **RATES)


@jl.cell
def bare_sum():
    """A running sum, whose carry has no field h."""

    def initial_carry(params, x, key=None):
        return jnp.zeros(x.shape, x.dtype)

    return lambda key, x: (), initial_carry, lambda params, carry, x: (carry + x, carry + x)


def by_hand(masks, carry, resets):
    """The equations, on inputs, states and outputs multiplied by the masks beforehand."""
    ys = []
    for x, reset in zip(XS, resets, strict=True):
        h = jnp.where(reset[:, None], 0, carry) * masks.recurrent
        (carry,), y = papers.elman_tanh(PARAMS, jl.ElmanCarry(h), x * masks.inputs)
        ys.append(y * masks.outputs)
    return carry, jnp.stack(ys)


def test_masks_are_the_same_at_every_step_and_across_resets():
    carry = papers.away_from_zero(KEY, BARE.initial_carry(PARAMS, XS[0]))
    masks = NOISY.initial_carry(PARAMS, XS[0], KEY).masks
    resets = np.arange(18).reshape(6, 3) % 5 == 2
    start = jl.DropoutCarry(carry, masks)
    last, ys = jl.scan(NOISY, PARAMS, XS, start, key=jax.random.key(9), resets=resets)
    papers.close((last.carry.h, ys), by_hand(masks.value, carry.h, resets), 1e-13)
    papers.close(last.masks, masks, 0)


def test_masks_outlast_skipped_steps():
    masks = NOISY.initial_carry(PARAMS, XS[0], KEY).masks
    last, _ = jl.scan(NOISY, PARAMS, XS, key=KEY, lengths=[6, 0, 2], mask=XS[..., 0] > 0)
    papers.close(last.masks, masks, 0)


def test_masks_are_zero_or_scaled_up_in_the_proportions_asked_for():
    x = jnp.zeros((4000, 4), jnp.float64)
    masks = NOISY.initial_carry(PARAMS, x, KEY).masks.value
    for mask, rate in zip(masks, (0.3, 0.25, 0.5), strict=True):
        np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - rate)])
        np.testing.assert_allclose(mask.mean(), 1, atol=0.02)
        assert mask.dtype == x.dtype
    assert [m.shape for m in masks] == [(4000, 4), (4000, 5), (4000, 5)]


def test_dropout_keeps_the_expected_output_of_a_linear_cell():
    noisy = jl.variational_dropout(bare_sum(), 0.5, outputs=0.25)
    xs = jnp.ones((3, 20000, 1))
    _, ys = jl.scan(noisy, (), xs, key=KEY)
    np.testing.assert_allclose(ys.mean((1, 2)), [1, 2, 3], rtol=0.03)


def test_each_sequence_and_each_key_has_its_own_masks():
    draw = lambda key: NOISY.initial_carry(PARAMS, jnp.zeros((64, 4)), key).masks.value.inputs
    assert len(np.unique(draw(KEY), axis=0)) > 1
    assert (draw(KEY) != draw(jax.random.key(1))).any()
    np.testing.assert_array_equal(draw(KEY), draw(KEY))


@pytest.mark.parametrize("bare", [BARE, bare_sum()])
def test_no_dropout_is_the_bare_cell(bare):
    none = jl.variational_dropout(bare, 0.0)
    params = papers.drawn(bare, XS[0], KEY)
    last, ys = jl.scan(none, params, XS, key=KEY)
    papers.close((last.carry, ys), jl.scan(bare, params, XS), 1e-15)
    assert last.masks.value == (None, None, None)


def test_only_dropout_on_the_recurrent_way_gives_up_the_fast_path():
    assert jl.explain(NOISY, PARAMS, XS) == {"reference": None}
    outside = jl.variational_dropout(BARE, 0.3, outputs=0.5)
    assert jl.explain(outside, PARAMS, XS) == jl.explain(BARE, PARAMS, XS)


def test_masks_are_in_half_precision_where_the_cell_is():
    x = jnp.zeros((3, 4), jnp.bfloat16)
    params = papers.drawn(BARE, x, KEY)
    assert {m.dtype for m in NOISY.initial_carry(params, x, KEY).masks.value} == {x.dtype}
    last, ys = jl.scan(NOISY, params, jnp.zeros((6, 3, 4), jnp.bfloat16), key=KEY)
    assert last.carry.h.dtype == ys.dtype == x.dtype


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5])
@pytest.mark.parametrize("name", ["rate", "recurrent", "outputs"])
def test_rates_outside_of_0_to_1_raise(name, rate):
    with pytest.raises(ValueError, match=rf"{name}: expected a number in \[0, 1\), got {rate}"):
        jl.variational_dropout(BARE, **{"rate": 0.1, name: rate})


def test_what_can_not_be_dropped_raises():
    with pytest.raises(ValueError, match="bare: expected a Cell, got 5"):
        jl.variational_dropout(5, 0.1)
    with pytest.raises(ValueError, match=r"key: elman\(5\) with variational_dropout draws masks"):
        jl.scan(NOISY, PARAMS, XS)
    for bare in (bare_sum(), jl.mgu(5)):
        with pytest.raises(ValueError, match=f"recurrent: expected 0 for {bare.name[:3]}"):
            jl.variational_dropout(bare, 0.1, recurrent=0.2)


def test_inputs_that_are_not_one_array_raise():
    timed = jl.time_aware_lstm(5)
    xs = jl.TimeAwareLSTMInput(XS, XS[..., 0])
    params = papers.drawn(timed, jax.tree.map(lambda x: x[0], xs), KEY)
    with pytest.raises(ValueError, match=r"rate: expected 0 for time_aware_lstm\(5\), of which"):
        jl.scan(jl.variational_dropout(timed, 0.1), params, xs, key=KEY)
    jl.scan(jl.variational_dropout(timed, 0.0, outputs=0.1), params, xs, key=KEY)


def test_what_a_gru_keeps_of_its_state_is_not_dropped():
    cell = jl.gru(5)
    params = jax.tree.map(jnp.zeros_like, papers.drawn(cell, XS[0], KEY))
    params = params._replace(b=params.b.at[1].set(60))  # the update gate, wide open
    noisy = jl.variational_dropout(cell, 0.0, recurrent=0.5)
    masks = noisy.initial_carry(params, XS[0], KEY).masks
    start = jl.GRUCarry(jnp.full((3, 5), 0.3))
    last, _ = jl.scan(noisy, params, XS, jl.DropoutCarry(start, masks))
    np.testing.assert_allclose(last.carry.h, 0.3, rtol=1e-12)


def test_weight_drop_drops_recurrent_weights_alone_and_scales_the_others():
    params = jl.init_lstm(KEY, 4, 64, dtype=jnp.float64)
    dropped = jl.weight_drop(params, KEY, 0.25)
    papers.close(dropped._replace(w_h=params.w_h), params, 0)
    kept = dropped.w_h != 0
    np.testing.assert_allclose(kept.mean(), 0.75, atol=0.02)
    np.testing.assert_allclose(dropped.w_h[kept], params.w_h[kept] / 0.75, rtol=1e-14)
    np.testing.assert_array_equal(jl.weight_drop(params, KEY, 0.0).w_h, params.w_h)


def test_weight_drop_reaches_every_layer_with_masks_of_their_own():
    deep = jl.stack(jl.elman(4), jl.elman(4)).init(KEY, XS[0])
    first, second = jl.weight_drop(deep, KEY, 0.5)
    assert ((first.w_h == 0) != (second.w_h == 0)).any()


def test_weight_drop_lets_gradients_through_to_the_weights_kept():
    w_h = lambda params: jl.weight_drop(params, KEY, 0.5).w_h
    gradient = jax.grad(lambda params: w_h(params).sum())(PARAMS).w_h
    np.testing.assert_array_equal(gradient, 2.0 * (w_h(PARAMS) != 0))


def test_weights_that_can_not_be_dropped_raise():
    with pytest.raises(ValueError, match=r"rate: expected a number in \[0, 1\), got 1"):
        jl.weight_drop(PARAMS, KEY, 1)
    with pytest.raises(ValueError, match="params: expected a field w_h, got PyTreeDef"):
        jl.weight_drop({"w": XS}, KEY, 0.5)
