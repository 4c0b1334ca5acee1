import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
BARE = jl.lstm(5)
XS = jnp.asarray(papers.normal(6, 3, 4))
PARAMS = papers.drawn(BARE, XS[0], KEY)
CARRY = papers.away_from_zero(KEY, BARE.initial_carry(PARAMS, XS[0]))


def test_units_under_the_mask_keep_their_states_and_the_others_are_the_cell_s():
    masks = jl.ZoneoutMasks(*(jax.random.bernoulli(k, 0.5, (3, 5)) for k in jax.random.split(KEY)))
    last, y = jl.zoneout_step(BARE, PARAMS, CARRY, XS[0], masks)
    new, _ = papers.lstm(PARAMS, CARRY, XS[0])
    for name, mask in masks._asdict().items():
        expected = np.where(mask, getattr(CARRY, name), getattr(new, name))
        np.testing.assert_allclose(getattr(last, name), expected, rtol=1e-12)
    assert y is last.h


def test_the_output_of_a_cell_linear_in_its_state_is_zoned_out_in_half_precision_too():
    cell, x = jl.minlstm(5), XS[0].astype(jnp.bfloat16)
    params = papers.drawn(cell, x, KEY)
    start = jl.MinLSTMCarry(jnp.full((3, 5), 0.5, jnp.float32))
    masks = jl.ZoneoutMasks(h=jnp.ones((3, 5), bool))
    last, y = jl.zoneout_step(cell, params, start, x, masks)
    assert (last.h == 0.5).all()
    assert (y == 0.5).all()
    assert y.dtype == x.dtype


def test_no_zoneout_and_one_that_was_given_masks_of_nothing_are_the_bare_cell():
    actual = jl.scan(jl.zoneout(BARE), PARAMS, XS, key=KEY)
    expected = jl.scan(BARE, PARAMS, XS)
    papers.close((actual[0].carry, actual[1]), expected, 1e-13)
    papers.close(jl.scan(jl.expected_zoneout(BARE), PARAMS, XS), expected, 1e-13)


@pytest.mark.parametrize("rates", [{"c": 0.5}, {"h": 0.25}, {"c": 0.5, "h": 0.25}])
def test_as_many_states_are_kept_as_were_asked_for(rates):
    x = jnp.zeros((3000, 4), jnp.float64)
    noisy = jl.zoneout(BARE, **rates)
    start = noisy.initial_carry(PARAMS, x, KEY)
    inner = papers.away_from_zero(KEY, start.carry)
    last, _ = noisy.step(PARAMS, start._replace(carry=inner), x)
    for name in ("c", "h"):
        kept = (getattr(last.carry, name) == getattr(inner, name)).mean()
        np.testing.assert_allclose(kept, rates.get(name, 0), atol=0.02)


def test_noise_is_new_at_each_step_and_for_each_sequence_and_the_same_for_a_key():
    noisy = jl.zoneout(BARE, h=0.5)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)._replace(b=jnp.ones((4, 5)))
    run = lambda key, xs=XS, **kw: jl.scan(noisy, zeros, 0 * xs, key=key, **kw)[1]
    kept = jnp.diff(run(KEY), axis=0) == 0  # (T - 1, B, H)
    assert len(np.unique(kept.reshape(5, -1), axis=0)) == 5
    assert len(np.unique(np.asarray(kept).swapaxes(0, 1).reshape(3, -1), axis=0)) == 3
    np.testing.assert_array_equal(run(KEY), run(KEY))
    assert (run(KEY) != run(jax.random.key(1))).any()


def test_a_reset_does_not_bring_the_old_noise_back():
    noisy = jl.zoneout(BARE, h=0.5)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)._replace(b=jnp.ones((4, 5)))
    resets = np.arange(6) % 3 == 0
    ys = jl.scan(noisy, zeros, 0 * XS[:, 0], key=KEY, resets=resets)[1]
    assert (ys[:3] != ys[3:]).any()


def test_the_expectation_mixes_the_states():
    mean, y = jl.expected_zoneout(BARE, c=0.5, h=0.1).step(PARAMS, CARRY, XS[0])
    new, _ = papers.lstm(PARAMS, CARRY, XS[0])
    np.testing.assert_allclose(mean.c, 0.5 * CARRY.c + 0.5 * new.c, rtol=1e-12)
    np.testing.assert_allclose(y, 0.1 * CARRY.h + 0.9 * new.h, rtol=1e-12)


def test_half_precision_stays_half_precision():
    xs = XS.astype(jnp.bfloat16)
    params = papers.drawn(BARE, xs[0], KEY)
    for cell in (jl.zoneout(BARE, c=0.5, h=0.5), jl.expected_zoneout(BARE, c=0.5, h=0.5)):
        last, ys = jl.scan(cell, params, xs, key=KEY)
        last = getattr(last, "carry", last)
        assert (last.c.dtype, last.h.dtype, ys.dtype) == (jnp.float32, xs.dtype, xs.dtype)


def test_what_can_not_be_zoned_out_raises():
    with pytest.raises(ValueError, match=r"h: expected a number in \[0, 1\), got 1"):
        jl.zoneout(BARE, h=1)
    with pytest.raises(ValueError, match="bare: expected a Cell, got 5"):
        jl.expected_zoneout(5)
    with pytest.raises(ValueError, match=r"key: lstm\(5\) with zoneout draws masks"):
        jl.scan(jl.zoneout(BARE, h=0.1), PARAMS, XS)
    gru = jl.gru(5)
    with pytest.raises(ValueError, match="c: expected no zoneout of c for a carry without it"):
        jl.scan(jl.zoneout(gru, c=0.1), papers.drawn(gru, XS[0], KEY), XS, key=KEY)
    with pytest.raises(ValueError, match=r"masks.h: expected shape \(3, 5\), as carry.h"):
        jl.zoneout_step(BARE, PARAMS, CARRY, XS[0], jl.ZoneoutMasks(h=jnp.ones((3, 4), bool)))
    with pytest.raises(ValueError, match=r"h: expected a cell whose output is its h.* skip"):
        jl.zoneout_step(jl.skip(BARE), PARAMS, CARRY, XS[0], jl.ZoneoutMasks(h=CARRY.h > 0))
