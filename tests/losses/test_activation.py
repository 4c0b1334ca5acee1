import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl

YS = jax.random.normal(jax.random.key(0), (6, 3, 4), jnp.float64)
LENGTHS = np.array([6, 0, 2])
PENALTIES = [jl.activation_regularization, jl.temporal_activation_regularization]


def test_by_hand():
    valid = np.concatenate([YS[: LENGTHS[n], n] for n in range(3)])
    np.testing.assert_allclose(PENALTIES[0](YS, lengths=LENGTHS), (valid**2).mean(), rtol=1e-12)
    changes = np.concatenate([np.diff(YS[: LENGTHS[n], n], axis=0) for n in (0, 2)])
    np.testing.assert_allclose(PENALTIES[1](YS, lengths=LENGTHS), (changes**2).mean(), rtol=1e-12)
    np.testing.assert_allclose(PENALTIES[1](YS), (np.diff(YS, axis=0) ** 2).mean(), rtol=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_padding_counts_for_nothing_and_nothing_at_all_for_zero(penalty):
    padding = np.arange(6)[:, None, None] >= LENGTHS[:, None]
    run = jax.value_and_grad(lambda ys: penalty(ys, lengths=LENGTHS))
    spoilt, clean = run(jnp.where(padding, jnp.nan, YS)), run(YS)
    np.testing.assert_array_equal(spoilt[0], clean[0])
    np.testing.assert_array_equal(spoilt[1], clean[1])
    assert penalty(YS, lengths=[0, 0, 0]) == 0


def test_half_precision_does_not_overflow():
    penalty = PENALTIES[0](jnp.ones((60, 40, 40), jnp.float16))
    assert (penalty, penalty.dtype) == (1, jnp.float32)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_what_does_not_fit_raises(penalty):
    with pytest.raises(ValueError, match="ys: expected an array of floating-point numbers"):
        penalty(jnp.ones((6, 3), int))
    with pytest.raises(ValueError, match=r"ys: expected \(T, \*B, H\)"):
        penalty(jnp.ones(6))
    with pytest.raises(ValueError, match="lengths: expected the batch axes"):
        penalty(YS, lengths=[1, 2])
