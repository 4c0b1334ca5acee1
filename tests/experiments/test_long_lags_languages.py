"""The formal languages: strings, what may come next, and networks that are right or wrong."""

import itertools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from experiments.long_lags import __main__ as command
from experiments.long_lags import formal, languages, strings

KEY = jax.random.key(0)
PAIRS = {")": "(", "]": "["}


def drawn(language, lengths, time=20):
    """Pairs of a string and what is to be said after each symbol, cut to their lengths."""
    make = jax.jit(lambda key: strings.draw(language, key, jnp.asarray(lengths), time))
    batch = jax.tree.map(np.asarray, make(KEY))
    for b, n in enumerate(lengths):
        yield batch.xs[:n, b], batch.targets[:n, b]


@pytest.mark.parametrize(
    ("language", "steps", "classes"),
    [(languages.parity(), (0, 1), 2), (languages.cycle(), (-1, 0, 1), 5)],
)
def test_walks_end_where_a_sum_says(language, steps, classes):
    seen = Counter()
    for xs, targets in drawn(language, np.arange(1, 21).repeat(50)):
        place = 0
        for x, target in zip(xs, targets, strict=True):
            place = (place + steps[x]) % classes
            assert list(target) == [float(k == place) for k in range(classes)]
        seen.update(xs.tolist())
    assert language.symbols == len(steps) == len(seen)
    each = seen.total() / len(steps)
    assert all(abs(count - each) < 5 * each**0.5 for count in seen.values())


@pytest.mark.parametrize("kinds", [2, 3])
def test_what_may_follow_a_beginning_of_counted_symbols_is_what_some_word_has(kinds):
    alphabet = "abc"[:kinds]
    all_words = ["".join(s * n for s in alphabet) for n in range(1, 30)]
    lengths = np.arange(kinds, 20, kinds)
    for (xs, targets), length in zip(
        drawn(languages.counting(kinds), lengths), lengths, strict=True
    ):
        word = "".join(alphabet[x] for x in xs)
        assert word == all_words[length // kinds - 1]
        for n in range(1, length + 1):
            longer = [w + "." for w in all_words if w.startswith(word[:n])]
            assert {(alphabet + ".")[k] for k in np.flatnonzero(targets[n - 1])} == {
                w[n] for w in longer
            }


def is_dyck(word):
    stack = []
    for symbol in word:
        if symbol in "([":
            stack.append(symbol)
        elif not stack or stack.pop() != PAIRS[symbol]:
            return False
    return not stack


def deepest(word):
    return max(np.cumsum([1 if symbol in "([" else -1 for symbol in word]))


@pytest.mark.parametrize(("kinds", "depth"), [(1, 3), (2, 2), (2, 250)])
def test_brackets_close_what_is_open(kinds, depth):
    opening, closing = "(["[:kinds], ")]"[:kinds]
    lengths = np.arange(2, 21, 2).repeat(20)
    for xs, targets in drawn(languages.brackets(kinds, depth), lengths):
        word = "".join((opening + closing)[x] for x in xs)
        assert is_dyck(word)
        assert deepest(word) <= depth
        for n, target in enumerate(targets, 1):
            # What may close is what makes, of this beginning, one that some Dyck word has.
            may = [c for c in closing if is_dyck(completed(word[:n] + c))]
            assert may == [closing[k] for k in np.flatnonzero(target)]


def completed(prefix):
    """A prefix and the brackets that close all that it leaves open, if it can be one."""
    stack = []
    for symbol in prefix:
        if symbol in PAIRS:
            if not stack or stack.pop() != PAIRS[symbol]:
                return prefix
        else:
            stack.append(symbol)
    return prefix + "".join({"(": ")", "[": "]"}[s] for s in reversed(stack))


def test_all_words_of_brackets_are_equally_likely():
    count = 5000
    for kinds, depth, length in [(1, 3, 10), (2, 2, 6)]:
        alphabet = "([)]" if kinds == 2 else "()"
        every = ["".join(w) for w in itertools.product(alphabet, repeat=length)]
        every = [w for w in every if is_dyck(w) and deepest(w) <= depth]
        found = drawn(languages.brackets(kinds, depth), np.full(count, length), length)
        seen = Counter("".join(alphabet[x] for x in xs) for xs, _ in found)
        assert set(seen) <= set(every)
        each = count / len(every)
        square = sum((seen[w] - each) ** 2 / each for w in every)
        assert square < len(every) + 5 * (2 * len(every)) ** 0.5


@pytest.mark.parametrize("name", ["parity", "anbn", "anbncn"])
def test_lengths_to_learn_from_are_equally_often_all_that_there_are(name):
    language = formal.TASKS[name].language
    found = jax.jit(lambda key: strings.short(language, key, 4000).lengths)(KEY)
    lengths = Counter(np.asarray(found).tolist())
    assert sorted(lengths) == list(range(language.unit, 41, language.unit))
    each = 4000 / len(lengths)
    assert all(abs(n - each) < 5 * each**0.5 for n in lengths.values())


def test_a_string_is_right_if_it_is_wherever_something_is_to_be_said():
    for name, at in {"parity": [3], "anbn": [0, 1, 2, 3]}.items():
        language = formal.TASKS[name].language
        batch = jax.jit(lambda key, of=language: strings.draw(of, key, jnp.full(8, 4), 6))(KEY)
        right = jax.jit(lambda y, of=language, batch=batch: strings.right(of, y, batch))
        y = 2 * batch.targets - 1
        assert right(y).all()
        for t in range(6):
            np.testing.assert_array_equal(right(y.at[t].multiply(-1)), t not in at)


def test_the_loss_is_the_mean_cross_entropy_of_what_is_scored():
    lengths = jnp.array([2, 4, 6])
    for name in ("parity", "anbn"):
        task = formal.TASKS[name]
        batch = jax.jit(lambda key, of=task.language: strings.draw(of, key, lengths, 6))(KEY)
        y = np.asarray(jax.random.normal(KEY, batch.targets.shape))
        targets, expected = np.asarray(batch.targets), []
        for b, n in enumerate(lengths):
            if name == "parity":
                p = np.exp(y[n - 1, b]) / np.exp(y[n - 1, b]).sum()
                expected.append(-np.log(p[targets[n - 1, b] == 1])[0])
            else:
                for t in range(n):
                    p = 1 / (1 + np.exp(-y[t, b]))
                    expected.append(-np.log(np.where(targets[t, b] == 1, p, 1 - p)).sum())
        np.testing.assert_allclose(
            strings.loss(task.language, y, batch), np.mean(expected), rtol=1e-12
        )


def test_a_network_made_by_hand_has_parity_right_at_every_length():
    """Whether s and x differ is relu(s - x) + relu(x - s), which is two units and their sum."""
    language, cell = languages.parity(), jl.elman(2, activation="relu")
    w_x, w_h = jnp.array([[0.0, 0.0], [-1.0, 1.0]]), jnp.array([[1.0, -1.0], [1.0, -1.0]])
    params = (
        jl.ElmanParams(w_x, w_h, jnp.zeros(2)),
        jnp.array([[0.0, 2.0]] * 2),
        jnp.array([1.0, 0]),
    )
    both = jax.tree.map(lambda *a: jnp.stack(a), params, (params[0], -params[1], -params[2]))
    lengths = np.arange(1, 100, 7)
    shares = strings.by_length(language, cell, both, lengths, 3)
    assert shares.shape == (2, len(lengths))
    np.testing.assert_array_equal(shares[0], 1)
    np.testing.assert_array_equal(shares[1], 0)


def test_the_forget_gates_begin_with_the_bias_that_is_given():
    way = strings.Way(3, 1e-2, 1)
    of = lambda way: strings.init(languages.parity(), jl.lstm(3), way, KEY)
    for changed in (None, 6.0):
        b = of(way._replace(forget_bias=changed))[0].b
        np.testing.assert_array_equal(b[1], 1 if changed is None else changed)
        np.testing.assert_array_equal(b[jnp.array([0, 2, 3])], 0)
    np.testing.assert_array_equal(of(way)[1], of(way._replace(forget_bias=6.0))[1])


def test_the_constant_answer():
    lengths = np.arange(41, 121)
    assert abs(strings.constant(formal.TASKS["parity"].language, lengths, 16) - 0.5) < 0.07
    assert abs(strings.constant(formal.TASKS["cycle"].language, lengths, 16) - 0.2) < 0.06
    assert strings.constant(formal.TASKS["anbn"].language, lengths[1::2], 1) == 0


def test_a_quick_run_prints_its_result_beside_the_paper_s_and_the_floor(capsys, tmp_path):
    arguments = ["anbncn", "--form", "lstm", "--quick", "--budget", "5", "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    said = capsys.readouterr().out
    assert re.search(r"^5 updates: loss \S+ \S+$", said, re.MULTILINE)
    assert "a^n b^n c^n: strings of 41 to 500, lstm: best " in said
    assert "paper: learns it" in said
    assert "floor: the most frequent answer: 0.0%" in said
    assert not list(tmp_path.iterdir())
