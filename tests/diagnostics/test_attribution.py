"""Saliency and integrated gradients: completeness, and functions whose parts are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.diagnostics import integrated_gradients, saliency
from tests import papers

KEY = jax.random.key(2)
XS = jnp.asarray(papers.normal(7, 3, 4))
CELL = jl.lstm(5, peephole=True)
PARAMS = papers.drawn(CELL, XS[0], KEY)
LENGTHS = jnp.array([7, 0, 3])


def score(xs):
    carry, _ = jl.scan(CELL, PARAMS, xs, lengths=LENGTHS)
    return carry.h[:, 2].sum()


def test_saliency_is_the_slope():
    found = saliency(score, XS)
    assert found.shape == XS.shape
    step = jnp.zeros_like(XS).at[1, 2, 3].set(1e-6)
    slope = (score(XS + step) - score(XS - step)) / 2e-6
    np.testing.assert_allclose(found[1, 2, 3], abs(slope), atol=1e-9)  # of central differences
    assert not found[:, 1].any()
    assert not found[3:, 2].any()


def test_integrated_gradients_are_complete():
    baseline = 0.5 * jnp.ones_like(XS)
    for base in (None, baseline):
        parts = integrated_gradients(score, XS, base)
        base = jnp.zeros_like(XS) if base is None else base
        difference = score(XS) - score(base)
        np.testing.assert_allclose(parts.attributions.sum(), difference, atol=1e-12)
        np.testing.assert_allclose(parts.difference, difference, atol=1e-15)
        np.testing.assert_allclose(parts.gap, 0, atol=1e-12)  # the quadrature has converged
        assert not parts.attributions[:, 1].any()
    assert abs(integrated_gradients(score, 3 * XS, steps=1).gap) > 1e-3


def test_integrated_gradients_of_functions_whose_parts_are_known():
    weights = jnp.arange(12.0).reshape(3, 4)
    parts = integrated_gradients(lambda x: (weights * x).sum(), jnp.ones((3, 4)), steps=1)
    np.testing.assert_allclose(parts.attributions, weights, atol=1e-13)
    # x y along the diagonal: half of the product to each.
    parts = integrated_gradients(
        lambda xy: xy["x"] * xy["y"], {"x": 2.0 * jnp.ones(()), "y": 3.0 * jnp.ones(())}
    )
    np.testing.assert_allclose([parts.attributions["x"], parts.attributions["y"]], 3, atol=1e-13)


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"score: expected a scalar, got shape \(3,\)"):
        saliency(lambda xs: jl.scan(CELL, PARAMS, xs)[1][-1, :, 0], XS)
    with pytest.raises(ValueError, match="xs: expected an array of floating-point numbers"):
        saliency(score, jnp.ones((7, 3), int))
    with pytest.raises(ValueError, match=r"baseline: expected shape \(7, 3, 4\) as xs has it"):
        integrated_gradients(score, XS, jnp.zeros(4))
    with pytest.raises(ValueError, match="baseline: expected the structure of xs"):
        integrated_gradients(score, XS, (XS,))
    with pytest.raises(ValueError, match="steps: expected a positive integer, got 0"):
        integrated_gradients(score, XS, steps=0)
