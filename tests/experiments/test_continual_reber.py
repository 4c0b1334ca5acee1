"""Embedded Reber strings without an end: the stream, and when a network begins anew."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.long_lags import __main__ as command
from experiments.long_lags import blocks, continual, online, reber

KEY = jax.random.key(0)


def walk(steps):
    place, found = continual.BEGIN, []
    for key in jax.random.split(KEY, steps):
        following = continual.advance(key, place)
        found.append((int(place.symbol), np.asarray(continual.LEGAL[place.state])))
        place = following
    return found


def test_a_stream_is_embedded_strings_one_after_another():
    found = walk(300)
    said = "".join(reber.SYMBOLS[symbol] for symbol, _ in found)
    assert all(legal[now] for (_, legal), (now, _) in itertools.pairwise(found))
    strings = said.replace("TEB", "TE B").replace("PEB", "PE B").split(" ")[:-1]
    assert len(strings) > 15
    assert {s[1] for s in strings} == {"T", "P"}
    assert all(s[0] == "B" and s[-1] == "E" and s[1] == s[-2] and s[2] == "B" for s in strings)


def test_what_may_come_is_what_the_grammar_says():
    _, _, legal = reber.continual()
    words = ["".join(np.array(list(reber.SYMBOLS))[row]) for row in legal]
    assert words[:2] == ["B", "TP"]
    inner = ["B", "TP", "SX", "TV", "SX", "PV", "E"]
    assert words[2:16] == inner * 2
    assert words[16:] == ["T", "P", "E"]


def test_the_network_with_forget_gates_has_424_weights():
    params = blocks.init(KEY, continual.FORGETTING)
    assert sum(p.size for p in jax.tree.leaves(params)) == 424


def test_a_prediction_is_right_if_nothing_else_is_as_active():
    legal = jnp.array([True, False, True])
    assert continual.predicted(jnp.array([0.2, 0.1, 0.3]), legal)
    assert not continual.predicted(jnp.array([0.2, 0.2, 0.3]), legal)
    assert not continual.predicted(jnp.array([0.2, 0.9, 0.3]), legal)


def test_a_wrong_prediction_ends_the_stream_and_the_memory_but_no_weights():
    net = continual.FORGETTING
    step = jax.jit(lambda s: continual.learn(net, 0.99, s))
    state, ends, fresh = continual.begin(net, KEY), 0, online.begin(net)
    for _ in range(40):
        before, state = state, step(state)
        ended = state.streams > before.streams
        ends += int(ended)
        assert (state.params.w_y != before.params.w_y).any()
        assert state.right == (0 if ended else before.right + 1)
        if ended:
            jax.tree.map(np.testing.assert_array_equal, state.memory, fresh)
            assert state.place == continual.BEGIN
    assert 0 < ends < 40


def test_the_weights_that_are_tested_are_those_at_the_end_of_the_longest_stream():
    net = continual.FORGETTING
    step = jax.jit(lambda s: continual.learn(net, 1.0, s))
    states = [continual.begin(net, KEY)]
    for _ in range(40):
        states.append(step(states[-1]))
    rights = [int(s.right) for s in states]
    at = int(np.argmax(rights))
    assert 0 < at < 40
    assert states[-1].longest == rights[at]
    np.testing.assert_array_equal(states[-1].kept.w_y, states[at].params.w_y)
    assert (states[-1].kept.w_y != states[-1].params.w_y).any()


@pytest.mark.parametrize(("most", "count"), [(2, 2), (1000, 3)])
def test_a_stream_is_survived_until_the_first_error(most, count):
    """By weights that know what may follow the first three symbols, and no more."""
    net = continual.NET
    params = jax.tree.map(jnp.zeros_like, blocks.init(KEY, net))
    symbols, following, legal = reber.continual()
    known = np.zeros((7, 7), bool)
    known[symbols[:2].T] |= legal[following[:2].T]
    params = params._replace(w_d=jnp.where(jnp.asarray(known), 1.0, -1.0))
    found = continual.survived(net, most, jax.tree.map(lambda p: p[None], params), KEY[None])
    np.testing.assert_array_equal(found, [[count]])


def test_a_quick_run_says_what_became_of_the_networks(capsys, tmp_path):
    arguments = ["continual-reber", "--form", "forget-decay", "--quick", "--seeds", "2"]
    assert command.main([*arguments, "--budget", "20000", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "0% perfect" in said
    assert "paper: 62 % perfect" in said
