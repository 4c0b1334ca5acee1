"""Spikes and periods: the streams, when they end, and a network that counts by its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.long_lags import __main__ as command
from experiments.long_lags import blocks, online, spikes, timing

KEY = jax.random.key(0)


def walk(task, steps):
    place, places = spikes.begin_stream(task, KEY), []
    for key in jax.random.split(KEY, steps):
        places.append(place)
        place = spikes.advance(task, key, place)
    return places


def test_spikes_to_make_come_at_every_tenth_step():
    task = spikes.gts(10)
    places = walk(task, 45)
    assert [t + 1 for t, p in enumerate(places) if task.target(p) == 1] == [10, 20, 30, 40]
    assert all(task.asked(p) and task.x(p) == 0 for p in places)


def test_intervals_to_measure_are_of_two_lengths_and_asked_for_at_their_end():
    task = spikes.msd(5)
    places = walk(task, 300)
    at = [t for t, p in enumerate(places) if task.x(p) == 1]
    asked = {t: float(task.target(p)) for t, p in enumerate(places) if task.asked(p)}
    between = np.diff(at)
    assert at[0] == 0
    assert set(between) == {5, 6}
    assert asked == dict(zip(at[1:], (between == 6).astype(float), strict=True))


def test_the_function_to_make_is_a_cosine():
    task = spikes.pfg(8)
    found = [float(task.target(p)) for p in walk(task, 20)]
    np.testing.assert_allclose(found, 0.5 - 0.5 * np.cos(np.pi * np.arange(1, 21) / 4), atol=1e-6)


def counter(period):
    """Weights that count: s grows by 1 a step, and once it is at `period` its gate forgets it."""
    net = timing.NET
    params = jax.tree.map(jnp.zeros_like, blocks.init(KEY, net))
    seen = period - 0.5
    b = jnp.array([20.0, 20.0, 40 * seen, np.log(3)])  # input, output, forget gate, cell
    w_h = params.w_h.at[0, 2].set(-40.0)
    return params._replace(
        b=b, w_h=w_h, w_y=jnp.full_like(params.w_y, 20.0), b_y=jnp.array([-20 * seen])
    )


@pytest.mark.parametrize(("period", "through"), [(10, True), (9, False), (11, False)])
def test_a_network_that_counts_to_ten_gets_through(period, through):
    net, task = timing.NET, spikes.gts(10)
    assert timing.survives(task, net, counter(period), KEY) == through


@pytest.mark.parametrize("form", ["peepholes", "none"])
def test_a_wrong_output_ends_the_stream_and_the_memory_but_no_weights(form):
    net, task = timing.FORMS[form].net, spikes.gts(10)
    step = jax.jit(lambda s: timing.learn(task, net, s))
    state, ends, fresh = timing.begin(task, net, KEY), 0, online.begin(net)
    for _ in range(60):
        before, state = state, step(state)
        assert (state.params.w_y != before.params.w_y).any()
        if state.place.since == 1 and state.place.spikes == 0:
            ends += 1
            jax.tree.map(np.testing.assert_array_equal, state.memory, fresh)
    assert ends > 3


@pytest.mark.parametrize(("bias", "longest"), [(-5.0, 1), (5.0, 2)])
def test_the_weights_that_are_tested_are_those_at_the_last_spike_that_was_not_missed(bias, longest):
    task, net = spikes.gts(10), timing.NET
    state = timing.begin(task, net, KEY)
    place = state.place._replace(since=jnp.int32(0), spikes=jnp.int32(2))
    params = state.params._replace(b_y=jnp.array([bias]))
    state = state._replace(params=params, place=place, longest=jnp.int32(1))
    later = timing.learn(task, net, state)
    assert later.longest == longest
    of = later.params if longest == 2 else state.kept
    jax.tree.map(np.testing.assert_array_equal, later.kept, of)


def test_what_is_not_asked_for_teaches_nothing():
    net, task = timing.PEEPHOLES, spikes.msd(5)
    state = timing.begin(task, net, KEY)
    later = timing.learn(task, net, state)  # the first spike ends no interval
    jax.tree.map(np.testing.assert_array_equal, later.params, state.params)


def test_the_loss_ends_with_the_first_output_that_is_too_far_off():
    """A counter that misses the second spike: of all that follows nothing counts."""
    task, net = spikes.gts(10), timing.NET
    places = jax.tree.map(lambda *a: jnp.stack(a), *walk(task, 60))
    of_first = jax.tree.map(lambda a: a[:9], places)  # 0 is asked nine times
    params = counter(11)  # at the tenth step it says 0
    whole, first = (timing.loss(task, net, params, p) for p in (places, of_first))
    logits = 20 * (np.arange(1, 11) - 10.5)
    expected = np.logaddexp(0, logits)
    expected[9] = np.logaddexp(0, -logits[9])
    np.testing.assert_allclose(first, expected[:9].mean(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(whole, expected.mean(), rtol=1e-3)


def test_a_quick_run_of_today_s_form(capsys):
    command.main(["msd", "--form", "modern-peepholes", "--quick", "--seeds", "2"])
    assert "of 2 seeds" in capsys.readouterr().out


def test_a_quick_run(capsys):
    command.main(["gts", "--form", "peepholes", "--quick", "--seeds", "2"])
    said = capsys.readouterr().out
    assert "of 2 seeds" in said
    assert "floor: 0 always: 9 steps of 1,000" in said
