import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from experiments.language_model.ngram import cross_entropies


def witten_bell(train, test, symbols, order):
    """The recursion of the paper, over dictionaries."""
    seen = defaultdict(Counter)
    for n in range(order):
        for t in range(n, len(train)):
            seen[tuple(train[t - n : t])][train[t]] += 1

    def p(word, history):
        shorter = p(word, history[1:]) if history else 1 / symbols
        counts = seen.get(history)
        if not counts:
            return shorter
        return (counts[word] + len(counts) * shorter) / (counts.total() + len(counts))

    histories = [tuple(test[max(0, t - order + 1) : t]) for t in range(1, len(test))]
    return -sum(math.log(p(test[t + 1], h)) for t, h in enumerate(histories)) / len(histories)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_floor_is_the_recursion_of_the_paper(order):
    rng = np.random.default_rng(order)
    train = rng.choice(6, p=[0.4, 0.3, 0.15, 0.1, 0.05, 0], size=300)
    test = rng.choice(6, p=[0.3, 0.3, 0.2, 0.1, 0.05, 0.05], size=80)
    actual = cross_entropies(train, test, 6, order)[-1]
    assert actual == pytest.approx(witten_bell(train.tolist(), test.tolist(), 6, order), rel=1e-12)


def test_probabilities_of_all_symbols_sum_to_one():
    train = np.array([1, 2, 1, 3, 1, 2, 2, 1])
    ends = [np.array([1, 2, n]) for n in range(5)]
    # The second of two predictions differs between these tests; the first is common to all.
    common = cross_entropies(train, np.array([1, 2]), 5, 3)[-1]
    last = [2 * cross_entropies(train, end, 5, 3)[-1] - common for end in ends]
    assert sum(math.exp(-nats) for nats in last) == pytest.approx(1, rel=1e-12)
