import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlstm.train.guard import (
    EXCUSED,
    GOOD,
    NONFINITE,
    SPIKE,
    Policy,
    choose,
    initial_guard,
    judge,
)


def judged(losses, norms=None, spike=0.0):
    step = jax.jit(lambda guard, *values: judge(guard, *values, spike=spike))
    guard, verdicts = initial_guard(), []
    for n, loss in enumerate(losses):
        norm = 1.0 if norms is None else norms[n]
        verdict, guard = step(guard, jnp.float32(loss), jnp.float32(norm))
        verdicts.append(int(verdict))
    return verdicts, guard


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_told_and_forgotten(wrong):
    verdicts, guard = judged([1.0, wrong, 3.0], spike=3.0)
    assert verdicts == [GOOD, NONFINITE, GOOD]
    assert (guard.good, guard.bad) == (2, 1)
    np.testing.assert_allclose([guard.mean, guard.variance], [2.0, 1.0])
    verdicts, _ = judged([1.0, 1.0, 1.0], norms=[1.0, 1.0, wrong])
    assert verdicts == [GOOD, GOOD, NONFINITE]


def test_the_first_mean_and_variance_are_plain_ones():
    losses = np.random.default_rng(0).normal(3, 0.5, 49)
    _, guard = judged(losses)
    np.testing.assert_allclose(guard.mean, losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(guard.variance, losses.var(), rtol=1e-4)


def test_a_leap_is_told_once_the_loss_has_settled():
    losses = np.random.default_rng(0).normal(-1, 0.1, 300)
    losses[[50, 200, 250]] = 0, 0, -2  # early; late; and far below, which is no harm
    verdicts, guard = judged(losses, spike=6.0)
    assert np.flatnonzero(verdicts).tolist() == [200]
    assert verdicts[200] == SPIKE
    assert guard.bad == 1
    assert not any(judged(losses)[0])  # without a bound there are no leaps


def test_a_bad_step_is_not_made():
    old, new = (
        {"w": jnp.zeros(2), "key": jax.random.key(0)},
        {
            "w": jnp.full(2, jnp.nan),
            "key": jax.random.key(1),
        },
    )
    for verdict, expected in ((GOOD, new), (NONFINITE, old), (SPIKE, old)):
        got = jax.jit(choose)(jnp.int32(verdict), new, old)
        np.testing.assert_array_equal(got["w"], expected["w"])
        assert got["key"] == expected["key"]


@pytest.mark.parametrize(
    ("policy", "verdicts", "bad", "action", "why"),
    [
        (Policy(), [0, 0], 0, "", ""),
        (Policy(), [0, 1, 0], 1, "skip", "1 of 3 steps had a loss or gradient that is not finite"),
        (Policy(spike="rollback"), [2, 1], 2, "rollback", "1 of 2 steps had a loss far above"),
        (Policy(nonfinite="stop"), [1, 2], 2, "stop", "not finite; 1 of 2"),
        (Policy(budget=3), [2.0], 4, "stop", "4 bad steps in all, over the budget of 3"),
        (Policy(budget=3), [0], 4, "", ""),
    ],
)
def test_the_gravest_action_is_taken(policy, verdicts, bad, action, why):
    taken, reason = policy.action(verdicts, bad)
    assert taken == action
    assert why in reason


def test_an_unknown_action_is_refused():
    with pytest.raises(ValueError, match=r"spike: expected one of .*, got 'shrug'"):
        Policy(spike="shrug")


def test_a_gradient_that_overflowed_its_scale_is_excused_but_no_loss():
    guard = initial_guard()
    for loss, expected, bad in ((1.0, EXCUSED, 0), (np.nan, NONFINITE, 1)):
        verdict, guard = judge(guard, jnp.float32(loss), jnp.float32(np.inf), excused=True)
        assert (verdict, guard.bad, guard.good) == (expected, bad, 0)
    assert Policy("stop").action([EXCUSED], 0) == ("", "")
