import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlstm.train.averaging import averaged, begun, evaluated, initial_average, triggers


def test_the_mean_is_that_of_the_params_since_it_began():
    drawn = np.random.default_rng(0).normal(size=(9, 3))
    average, step = initial_average({"w": jnp.zeros(3)}), jax.jit(averaged)
    for n, w in enumerate(drawn):
        params = {"w": jnp.asarray(w)}
        average = step(average, params)
        if n < 4:
            np.testing.assert_array_equal(evaluated(average, params)["w"], w)
        if n == 4:
            average = begun(average, params)
    assert average.steps == 5
    np.testing.assert_allclose(evaluated(average, params)["w"], drawn[4:].mean(0), rtol=1e-12)
    again = begun(average, params)  # it begins once
    jax.tree.map(np.testing.assert_array_equal, again, average)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_mean_of_half_precision_does_not_stall(dtype):
    average = begun(initial_average(jnp.zeros((), dtype)), jnp.zeros((), dtype))
    average = average._replace(steps=jnp.int32(4000))
    ones = jnp.ones((), dtype)
    average = jax.lax.fori_loop(0, 4000, lambda _, a: averaged(a, ones), average)
    found = evaluated(average, ones)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(float), 0.5, rtol=1e-3)


def test_what_is_no_number_triggers_nothing_and_keeps_nothing_from_it():
    assert not triggers([])
    nan = float("nan")
    assert triggers([nan, 2.0, 3.0], patience=0)
    assert triggers([2.0, nan, 3.0], patience=1)
    assert not triggers([2.0, nan], patience=0)
    assert not triggers([nan, 3.0], patience=0)


def by_the_paper(scores, patience):
    """Algorithm 1: the index of the score at which T is set."""
    logs = []
    for t, v in enumerate(scores):
        if t > patience and v > min(logs[: t - patience]):
            return t
        logs.append(v)
    return None


@pytest.mark.parametrize("patience", [0, 1, 3, 5])
def test_it_begins_where_the_algorithm_does(patience):
    rng = np.random.default_rng(patience)
    for _ in range(50):
        scores = list(3 - 0.1 * np.arange(12) + rng.normal(0, 0.3, 12))
        ours = [triggers(scores[: n + 1], patience) for n in range(12)]
        expected = by_the_paper(scores, patience)
        assert (ours.index(True) if any(ours) else None) == expected
