"""Time constants and saturation, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlstm.diagnostics import saturation, time_constants

F = jnp.array([[[0.5, 0.0], [1.0, 0.95]], [[0.25, 0.05], [0.5, 0.91]], [[0.1, 0.9], [0.0, 0.99]]])
VALID = jnp.array([[True, True], [True, True], [False, True]])  # F is (T, B, H) = (3, 2, 2)


def test_time_constants():
    taus = time_constants(F)
    assert taus.shape == F.shape
    np.testing.assert_allclose(taus[0], [[1 / np.log(2), 0], [np.inf, -1 / np.log(0.95)]])
    # A state decays to 1/e of itself in τ steps.
    np.testing.assert_allclose(F[1, 0] ** taus[1, 0], np.exp(-1))
    assert np.isnan(time_constants(F, VALID)[2, 0]).all()
    assert not np.isnan(time_constants(F, VALID)[:, 1]).any()


def test_time_constants_over_time_are_of_the_product():
    taus = time_constants(F, VALID, over_time=True)
    np.testing.assert_allclose(taus[0, 0], -2 / np.log(0.5 * 0.25))
    np.testing.assert_allclose(taus[1], [0, -3 / np.log(0.95 * 0.91 * 0.99)])
    assert np.isnan(time_constants(F, jnp.zeros((3, 2), bool), over_time=True)).all()


def test_saturation():
    low, high = saturation(F)
    np.testing.assert_allclose(low, [1 / 6, 2 / 6])  # 0.1 is not below 0.1, 0.9 not above 0.9
    np.testing.assert_allclose(high, [1 / 6, 3 / 6])
    low, high = saturation(F, VALID)
    np.testing.assert_allclose(low, [1 / 5, 2 / 5])
    np.testing.assert_allclose(high, [1 / 5, 3 / 5])
    low, high = saturation(F, low=0.3, high=0.3, axes=2)
    np.testing.assert_allclose(low, [[2 / 3, 2 / 3], [1 / 3, 0]])
    np.testing.assert_allclose(high, [[1 / 3, 1 / 3], [2 / 3, 1]])


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="f: expected an array of floating-point numbers"):
        time_constants(jnp.ones((3, 2), int))
    with pytest.raises(ValueError, match="gate: expected time and units as axes, got shape"):
        saturation(jnp.ones(3))
    with pytest.raises(ValueError, match="valid: expected booleans"):
        saturation(F, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"low: expected at most high, 0\.1, got 0\.9"):
        saturation(F, low=0.9, high=0.1)
    with pytest.raises(ValueError, match="axes: expected 1 to 2, as gate has them, got 3"):
        saturation(F, axes=3)
