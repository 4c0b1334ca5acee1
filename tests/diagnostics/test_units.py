"""Correlations of units with a feature, against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlstm.diagnostics import correlations
from tests.diagnostics import SAME, B, H, T

STATES = jax.random.normal(jax.random.key(0), (T, B, H))
FEATURE = jax.random.normal(jax.random.key(1), (T, B))
VALID = jax.random.bernoulli(jax.random.key(2), 0.6, (T, B))


def oracle(states, feature, valid):
    return [np.corrcoef(states[valid][:, k], feature[valid])[0, 1] for k in range(states.shape[-1])]


@pytest.mark.parametrize("valid", [None, VALID], ids=["all steps", "some"])
@pytest.mark.parametrize("kind", [float, bool, int])
def test_correlations_are_those_of_numpy(kind, valid):
    feature = (2 * FEATURE).astype(kind) if kind is int else (FEATURE > 0).astype(kind)
    feature = FEATURE if kind is float else feature
    where = np.ones((T, B), bool) if valid is None else np.asarray(valid)
    expected = oracle(np.asarray(STATES), np.asarray(feature, float), where)
    np.testing.assert_allclose(correlations(STATES, feature, valid), expected, **SAME)
    jitted = jax.jit(correlations)(STATES, feature, valid)
    np.testing.assert_allclose(jitted, expected, **SAME)


def test_no_batch_axis_and_two():
    expected = correlations(STATES, FEATURE)
    flat = correlations(STATES.reshape(-1, H), FEATURE.reshape(-1))
    np.testing.assert_allclose(flat, expected, **SAME)
    two = correlations(STATES.reshape(T, B, 1, H), FEATURE.reshape(T, B, 1))
    np.testing.assert_allclose(two, expected, **SAME)


def test_a_unit_that_is_the_feature():
    states = jnp.stack([3 * FEATURE + 7, -FEATURE], -1)
    np.testing.assert_allclose(correlations(states, FEATURE), [1, -1], **SAME)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_what_does_not_vary_has_no_correlation(dtype):
    states = STATES.astype(dtype).at[..., 2].set(0.1)  # whose mean is not 0.1 when rounded
    found = correlations(states, FEATURE)
    assert found.dtype == ("float64" if dtype == "float64" else "float32")
    assert found[2] == 0
    assert (jnp.delete(found, 2) != 0).all()
    assert (correlations(states, jnp.full((T, B), 0.1)) == 0).all()
    assert (correlations(states, FEATURE, jnp.zeros((T, B), bool)) == 0).all()


def test_numbers_of_any_size_in_single_precision():
    states = STATES.astype("float32") * jnp.array([1e-30, 1e30, 1, 1, 1], "float32")
    found = correlations(states, FEATURE.astype("float32"))
    # float32 sums of some twenty numbers of about one
    np.testing.assert_allclose(found, correlations(STATES, FEATURE), rtol=0, atol=1e-6)
    near = 1000 + STATES.astype("float32")  # rounded to 6e-5 there
    found = correlations(near, FEATURE.astype("float32"))
    np.testing.assert_allclose(found, correlations(STATES, FEATURE), rtol=0, atol=1e-4)


def test_what_is_not_valid_changes_nothing():
    expected = correlations(STATES, FEATURE, VALID)
    states = jnp.where(VALID[..., None], STATES, jnp.nan)
    feature = jnp.where(VALID, FEATURE, jnp.inf)
    assert (correlations(states, feature, VALID) == expected).all()
    steps = jnp.arange(T) < 4  # of all sequences
    some = correlations(STATES[:4], FEATURE[:4])
    np.testing.assert_allclose(correlations(STATES, FEATURE, steps), some, **SAME)


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="states: expected an array of floating-point numbers"):
        correlations(jnp.ones((T, B, H), int), FEATURE)
    with pytest.raises(ValueError, match="states: expected time and units as axes, got shape"):
        correlations(FEATURE[:, 0], FEATURE[:, 0])
    with pytest.raises(ValueError, match=r"feature: expected shape \(6, 3\) as states have it"):
        correlations(STATES, FEATURE[:4])
    with pytest.raises(ValueError, match="valid: expected booleans"):
        correlations(STATES, FEATURE, jnp.ones((T, B)))
    with pytest.raises(ValueError, match="valid: expected time and the batch axes"):
        correlations(STATES, FEATURE, VALID[:4])
