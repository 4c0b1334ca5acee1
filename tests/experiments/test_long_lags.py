"""The long-lag experiments: the networks, tasks and criteria that the papers describe."""

import argparse
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.long_lags import __main__ as command
from experiments.long_lags import (
    blocks,
    classic,
    grammar,
    online,
    population,
    reber,
    results,
    sequences,
    supervised,
)

KEY = jax.random.key(0)
NETS = [
    blocks.Net(3, 2, 2, 2, span=1.0),
    blocks.Net(3, 2, 2, 1, span=1.0, logistic=False, biases="none", output_bias=False),
    blocks.Net(
        3, 2, 2, 3, span=1.0, forget_gates=True, gates_feed=False, direct=True, biases="gates"
    ),
    blocks.Net(3, 2, 1, 2, span=1.0, output_gates=False, recurrent=False),
    blocks.Net(3, 2, 2, 2, span=1.0, forget_gates=True, peepholes=True, squashed=False),
]
WEIGHTS = {  # printed in the papers
    "reber": 276,
    "lag-2a": 10_504,
    "lag-2b": 10_504,
    "lag-2c-100": 664,
    "lag-2c-1000": 6_064,
    **dict.fromkeys(("two-sequence-3a", "two-sequence-3b", "two-sequence-3c"), 102),
    **dict.fromkeys(("adding-100", "adding-500", "multiplication"), 93),
    "order-6a": 156,
    "order-6b": 308,
}


def net_of(name):
    return grammar.NET if name == "reber" else classic.EXPERIMENTS[name].net


@pytest.mark.parametrize("name", ["reber", *classic.EXPERIMENTS])
def test_a_network_has_the_weights_that_the_paper_counts(name):
    params = jax.eval_shape(lambda key: blocks.init(key, net_of(name)), KEY)
    assert sum(a.size for a in jax.tree.leaves(params)) == WEIGHTS[name]


def test_gates_begin_with_their_biases():
    net = classic.EXPERIMENTS["two-sequence-3a"].net
    b = blocks.init(KEY, net).b
    np.testing.assert_array_equal(b[:6], [-1, -3, -5, -2, -4, -6])
    assert (np.abs(b[6:]) <= net.span).all()


def problem(net):
    params = blocks.init(KEY, net)
    keys = jax.random.split(KEY)
    return params, jax.random.normal(keys[0], (7, 3)), jax.random.uniform(keys[1], (7, 2))


@pytest.mark.parametrize("net", NETS)
def test_the_equations(net):
    """A loop over blocks and cells, in Python."""
    params, xs, _ = problem(net)
    w_x, w_y = np.asarray(params.w_x), np.asarray(params.w_y)
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    gates, cells = net.gates, net.cells
    s, seen, ys = np.zeros((net.blocks, cells)), np.zeros(net.sources), []
    for x in np.asarray(xs):
        a = x @ w_x
        if params.w_h is not None:
            a = a + seen @ np.asarray(params.w_h)
        if params.b is not None:
            a[: len(params.b)] += np.asarray(params.b)
        y = np.zeros((net.blocks, cells))
        peep = np.zeros((gates, cells)) if params.w_p is None else np.asarray(params.w_p)
        for j in range(net.blocks):
            at_i, at_o, at_f = (n * net.blocks + j for n in range(3))
            a[at_i] += peep[at_i] @ s[j]
            if net.forget_gates:
                a[at_f] += peep[at_f] @ s[j]
            i, f = sigmoid(a[at_i]), sigmoid(a[at_f]) if net.forget_gates else 1
            for v in range(cells):
                g = 4 * sigmoid(a[gates + j * cells + v]) - 2
                s[j, v] = f * s[j, v] + i * g
            if net.output_gates:
                a[at_o] += peep[at_o] @ s[j]
            o = sigmoid(a[at_o]) if net.output_gates else 1
            y[j] = o * (2 * sigmoid(s[j]) - 1 if net.squashed else s[j])
        seen = np.concatenate([y.ravel(), sigmoid(a[:gates])])[: net.sources]
        out = y.ravel() @ w_y
        out = out if params.w_d is None else out + x @ np.asarray(params.w_d)
        out = out if params.b_y is None else out + np.asarray(params.b_y)
        ys.append(sigmoid(out) if net.logistic else out)
    actual = blocks.outputs(net, params, xs, jnp.array([0, 3, 6]))
    np.testing.assert_allclose(actual, np.array(ys)[[0, 3, 6]], rtol=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_traces_carried_forwards_give_the_truncated_gradient_of_the_way_back(net):
    params, xs, targets = problem(net)
    error = lambda params: (
        0.5 * jnp.square(blocks.outputs(net, params, xs, jnp.arange(7)) - targets).sum()
    )
    step = jax.jit(lambda memory, x, target: online.step(net, params, memory, x, target))
    memory, total = online.begin(net), jax.tree.map(jnp.zeros_like, params)
    for x, target in zip(xs, targets, strict=True):
        memory, _, gradient = step(memory, x, target)
        total = jax.tree.map(jnp.add, total, gradient)
    for actual, expected in zip(
        *map(jax.tree.leaves, (total, jax.grad(error)(params))), strict=True
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-14)


def test_the_truncated_gradient_is_another_than_the_whole_one():
    net = NETS[0]
    params, xs, _ = problem(net)
    of = lambda params, truncated: blocks.outputs(net, params, xs, jnp.array([6]), truncated).sum()
    cut, whole = (jax.grad(of)(params, truncated) for truncated in (True, False))
    np.testing.assert_allclose(cut.w_y, whole.w_y, rtol=1e-12)
    assert np.abs(cut.w_h - whole.w_h).max() > 1e-3
    along, step = jax.random.normal(KEY, params.w_h.shape), 1e-6
    at = lambda t: of(params._replace(w_h=params.w_h + t * along), False)
    slope = (at(step) - at(-step)) / (2 * step)
    np.testing.assert_allclose((whole.w_h * along).sum(), slope, rtol=1e-7)


def drawn(sample, count=300):
    return jax.jit(jax.vmap(sample))(jax.random.split(KEY, count))


@pytest.mark.parametrize("product", [False, True])
def test_marked_pairs(product):
    found = drawn(lambda key: sequences.marked_pairs(key, 100, product))
    lengths = np.asarray(found.times[:, 0]) + 1
    assert lengths.min() == 100
    assert lengths.max() == 110
    firsts = 0
    for xs, length, target in zip(np.asarray(found.xs), lengths, found.targets, strict=True):
        values, marks = xs[:length].T
        assert marks[0] == marks[-1] == -1
        marked = list(np.flatnonzero(marks == 1))
        firsts += len(marked) == 1
        numbers = [values[n] for n in marked] + [float(product)] * (2 - len(marked))
        assert len(numbers) == 2
        assert marked[-1] <= 49
        expected = np.prod(numbers) if product else 0.5 + sum(numbers) / 4
        np.testing.assert_allclose(target[0], expected, rtol=1e-12)
        assert -1 <= values.min() < (0.1 if product else -0.8)
    assert 15 < firsts < 45  # of 300, a tenth


@pytest.mark.parametrize("symbols", [2, 3])
def test_temporal_order(symbols):
    found = drawn(lambda key: sequences.temporal_order(key, symbols))
    ranges = {2: [(10, 20), (50, 60)], 3: [(10, 20), (33, 43), (66, 76)]}[symbols]
    orders = {}
    for xs, time, target in zip(*map(np.asarray, found[:3]), strict=True):
        xs = xs[: time[0] + 1]
        assert 100 <= len(xs) <= 110
        assert (xs[0], xs[-1]) == (6, 7)
        (at,) = np.nonzero((xs == 4) | (xs == 5))
        assert all(a <= t <= b for t, (a, b) in zip(at, ranges, strict=True))
        orders.setdefault(tuple(xs[at]), set()).add(int(target[0].argmax()))
    assert len(orders) == 2**symbols
    assert sorted(orders.values()) == [{n} for n in range(2**symbols)] or (
        set().union(*orders.values()) == set(range(2**symbols))
        and all(len(classes) == 1 for classes in orders.values())
    )


@pytest.mark.parametrize("local", [False, True])
def test_regular_lags(local):
    found = drawn(lambda key: sequences.regular_lag(key, 100, local), 20)
    assert found.xs.shape == (20, 100)
    for xs, targets in zip(np.asarray(found.xs), np.asarray(found.targets), strict=True):
        after = np.append(xs[1:], targets[-1].argmax())
        np.testing.assert_array_equal(targets, np.eye(101)[after])
        assert after[-1] == xs[0]
        assert xs[0] in (99, 100)
        assert xs[1:].max() < 99
        assert local == (list(xs[1:]) == list(range(99)))


def test_noisy_lags():
    found = drawn(lambda key: sequences.noisy_lag(key, 20, 7))
    waits = []
    for xs, (time,), target in zip(*map(np.asarray, found[:3]), strict=True):
        assert xs[0] == 7
        assert xs[time] == 8
        assert xs[1] - 9 == target[0].argmax()
        assert (xs[2:time] < 7).all()
        waits.append(time - 22)
    assert min(waits) == 0
    assert 7 < np.mean(waits) < 11  # of a geometric distribution, 9


def test_two_sequences():
    found = drawn(lambda key: sequences.two_sequence(key, 100, 3, 0.2, True), 2000)
    xs, label = np.asarray(found.xs)[..., 0], np.asarray(found.clean)[:, 0, 0] > 0.5
    np.testing.assert_allclose(xs[label, :3].mean(0), 1, atol=0.05)
    np.testing.assert_allclose(xs[~label, :3].mean(0), -1, atol=0.05)
    np.testing.assert_allclose(xs[:, 3:].var(), 0.2, rtol=0.05)
    noise = np.asarray(found.targets - found.clean)
    np.testing.assert_allclose(noise.var(), 0.1, rtol=0.1)
    plain = drawn(lambda key: sequences.two_sequence(key, 100, 3))
    assert set(np.unique(plain.targets)) == {0, 1}
    assert set(np.unique(plain.xs[:, :3])) == {-1, 1}


STRING = re.compile(r"B(T(S*X)|P(T*V))")  # how a Reber string begins


def test_reber_strings_and_what_may_come():
    """What may come after the beginning of a string is found by many strings."""
    rng = np.random.default_rng(0)
    strings = {reber.embedded(rng)[0] for _ in range(3000)}
    follows = lambda start: {s[len(start)] for s in strings if s.startswith(start) and s != start}
    for _ in range(20):
        string, allowed = reber.embedded(rng)
        assert STRING.match(string[2:])
        assert string[1] == string[-2]
        assert len(allowed) == len(string) - 1
        for n in range(1, min(6, len(string))):
            assert set(allowed[n - 1]) == follows(string[:n])
        assert allowed[-2] == string[1]


def test_reber_arrays():
    xs, following, legal = reber.data_set(np.random.default_rng(0), 50)
    assert xs.shape == (50, reber.LONGEST - 1)
    inside = following.sum(-1) == 1
    assert (legal[inside].sum(-1) >= 1).all()
    assert (legal[following == 1] == 1).all()
    assert (legal[~inside] == 0).all()
    assert (xs[:, 0] == 0).all()


def learner():
    """One that counts what it has seen, and is wrong by what the sequence says."""
    learn = lambda params, state, sequences: (params + 1, state, sequences.xs[:, 0])
    return population.Learner(lambda key: jnp.zeros(()), None, lambda params: (), learn)


@pytest.mark.parametrize(("begin", "when"), [(False, 8), (True, 4)])
def test_success_is_when_the_latest_are_right_and_ends_the_learning(begin, when):
    goal = population.Goal(5, 0.1, begin=begin)
    off = jnp.array([1.0, 1.0, 1.0, *[0.0] * 20])

    def one(state, n):
        sample = lambda key: sequences.Sequence(off[n][None], None, None, None, None)
        return population.train(learner(), sample, goal, 1, state), None

    state = population.start(learner(), goal, KEY)
    state, _ = jax.lax.scan(one, state, jnp.arange(12))
    assert state.solved == when
    assert state.seen == state.params == 8


@pytest.mark.parametrize(("name", "right"), [("order-6a", 1 / 4), ("lag-2c-100", 1 / 2)])
def test_the_floor_is_what_the_best_constant_has_wrong(name, right):
    wrong = classic.constant(classic.EXPERIMENTS[name]) / classic.TESTED
    assert wrong == pytest.approx(1 - right, abs=0.03)


@pytest.mark.parametrize("in_turn", [False, True])
def test_networks_learn_a_line_until_they_are_told_to_stop(in_turn, monkeypatch):
    looks, turns, of_each = [], [], jax.lax.map
    monkeypatch.setattr(jax.lax, "map", lambda *args: turns.append(1) or of_each(*args))

    def look(done, trained, losses):
        looks.append((done, losses))
        return done == 60

    draw = lambda key: (x := jax.random.normal(key, (8,)), 3 * x + 1)
    loss = lambda p, batch, key: jnp.square(p[0] * batch[0] + p[1] - batch[1]).mean()
    init = lambda key: jax.random.normal(key, (2,))
    options = {"seeds": 3, "updates": 100, "every": 20, "look": look, "in_turn": in_turn}
    trained = supervised.fit(init, loss, draw, optax.sgd(0.2), **options)
    assert [done for done, _ in looks] == [20, 40, 60]
    assert bool(turns) == in_turn
    assert all(losses.shape == (3,) for _, losses in looks)
    assert (looks[-1][1] < looks[0][1]).all()
    np.testing.assert_allclose(trained.params, [[3, 1]] * 3, atol=1e-6)


def test_networks_see_as_many_sequences_as_they_may():
    goal = population.Goal(5, -1.0)
    sample = lambda key: sequences.Sequence(jnp.ones(1), None, None, None, None)
    run = lambda budget, every: population.until_solved(
        learner(), sample, goal, 2, budget, report=lambda said: None, every=every
    )
    assert run(7, 3).seen.tolist() == [7, 7]
    assert run(2, 3).seen.tolist() == [2, 2]


def test_a_page_of_nothing_is_refused_and_the_old_one_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PAGE", tmp_path / "page.md")
    with pytest.raises(ValueError, match="--out: there are no results in"):
        command.main(["page", "--out", str(tmp_path)])
    (tmp_path / "other.json").write_text('{"task": "other", "form": "1997"}')
    with pytest.raises(ValueError, match=r"other\.json in .* is of no task"):
        command.main(["page", "--out", str(tmp_path)])
    assert not (tmp_path / "page.md").exists()


def test_one_seed_has_no_deviation():
    assert results.spread(np.array([0.5]), "{:.1%}") == "50.0%"
    assert results.spread(np.array([1.0, 3.0]), "{:.2f}") == "2.00 ± 1.00"


def test_the_command_that_is_kept_runs_again_and_names_no_place():
    given = argparse.Namespace(task="order-6a", seeds=3, budget=0, data="/somewhere")
    said = command.command(given, "modern")
    words = "python -m experiments.long_lags order-6a --form modern --seeds 3 --data FOLDER"
    assert said == words
