import itertools
from collections import Counter

import numpy as np
import pytest

from jaxlstm.data.buckets import Buckets


def epoch_of(buckets, epoch=0):
    return [next(buckets) for _ in range(buckets.batches(epoch))]


def ragged(rng, count, longest, width=2):
    lengths = rng.integers(0, longest + 1, count)
    return [rng.normal(size=(n, width)).astype(np.float32) for n in lengths]


@pytest.mark.parametrize("case", range(12))
def test_each_sequence_comes_once_an_epoch_with_all_that_is_its(case):
    rng = np.random.default_rng(case)
    sequences = ragged(rng, int(rng.integers(1, 40)), int(rng.integers(0, 12)))
    steps = [rng.integers(0, 9, len(s)) for s in sequences]
    labels = rng.normal(size=(len(sequences), 2))
    batch, bounds = int(rng.integers(1, 8)), [3, 7, 12] if case % 2 else None
    seed = None if case % 3 == 0 else case
    options = dict(bounds=bounds, targets=steps, labels=labels, seed=seed)
    buckets = Buckets(sequences, batch, **options)
    for epoch in range(2):
        seen, shapes = Counter(), set()
        for b in epoch_of(buckets, epoch):
            time = len(b.inputs)
            shapes.add(b.inputs.shape)
            assert time in buckets.bounds
            assert b.inputs.shape == (time, batch, 2)
            assert b.targets.shape == (time, batch)
            assert (b.inputs.dtype, b.lengths.dtype, b.sample.dtype) == (np.float32, "i4", "i4")
            for row, (number, length) in enumerate(zip(b.sample, b.lengths, strict=True)):
                assert not b.inputs[length:, row].any()
                assert not b.targets[length:, row].any()
                if number == -1:
                    assert length == 0
                    assert not b.labels[row].any()
                    continue
                seen[int(number)] += 1
                assert length == len(sequences[number])
                assert time == min(bound for bound in buckets.bounds if bound >= length)
                np.testing.assert_array_equal(b.inputs[:length, row], sequences[number])
                np.testing.assert_array_equal(b.targets[:length, row], steps[number])
                np.testing.assert_array_equal(b.labels[row], labels[number])
        assert seen == Counter(range(len(sequences)))
        assert len(shapes) <= len(buckets.bounds) <= 4


def test_without_a_seed_they_come_in_the_order_of_buckets_and_sequences():
    sequences = [np.ones(n) for n in (4, 1, 0, 5, 2)]
    batches = epoch_of(Buckets(sequences, 2, bounds=[2, 5]))
    assert [b.sample.tolist() for b in batches] == [[1, 2], [4, -1], [0, 3]]
    assert all(b.targets is None and b.labels is None for b in batches)


def test_short_and_long_batches_come_mixed():
    sequences = [np.ones(n) for n in [1] * 32 + [9] * 32]
    order = [len(b.inputs) for b in epoch_of(Buckets(sequences, 4, bounds=[1, 9], seed=0))]
    assert sorted(order) == [1] * 8 + [9] * 8
    assert order != sorted(order)


@pytest.mark.parametrize("case", range(6))
def test_the_bounds_are_those_that_pad_the_least(case):
    rng = np.random.default_rng(case)
    lengths = np.minimum(rng.lognormal(1.5, 0.8, rng.integers(5, 50)).astype(int), 14)
    buckets = Buckets([np.zeros(n) for n in lengths], 4)
    longest = max(1, lengths.max())

    def padded(bounds):
        return sum(min(b for b in bounds if b >= n) for n in lengths)

    every = [
        (*some, longest) for k in range(4) for some in itertools.combinations(range(1, longest), k)
    ]
    assert padded(buckets.bounds) == min(map(padded, every))


def test_of_one_length_there_is_one_bucket():
    assert Buckets([np.zeros(3)] * 9, 2).bounds == (3,)
    assert Buckets([np.zeros(0)] * 2, 2).bounds == (1,)


def test_fill_is_the_share_of_steps_that_are_not_padding():
    buckets = Buckets([np.ones(n) for n in (2, 1, 5, 3, 0)], 2, bounds=[2, 5], seed=1)
    batches = epoch_of(buckets)
    total = sum(b.inputs.size for b in batches)
    assert buckets.fill() == sum(b.inputs.sum() for b in batches) / total == 11 / 18


def test_an_empty_list_is_a_sequence_of_no_steps():
    batch = next(Buckets([[], [1, 2], []], 3, bounds=[2]))
    assert batch.inputs.dtype == np.asarray([1]).dtype
    assert (batch.lengths.tolist(), batch.sample.tolist()) == ([0, 2, 0], [0, 1, 2])


def test_other_labels_and_bounds_are_another_iterator():
    sequences = [np.ones(2), np.ones(3)]
    state = Buckets(sequences, 2, labels=[0, 1], bounds=[3]).get_state()
    with pytest.raises(ValueError, match=r"labels: \"\w{64}\" there, \"\w{64}\" here$"):
        Buckets(sequences, 2, labels=[1, 1], bounds=[3]).set_state(state)
    with pytest.raises(ValueError, match=r"another iterator: bounds: \[3\] there, \[2, 3\] here$"):
        Buckets(sequences, 2, labels=[0, 1], bounds=[2, 3]).set_state(state)
    other = Buckets([*sequences, []], 2, labels=[0, 1, 2], targets=[[1, 2], [1, 2, 3], []])
    with pytest.raises(ValueError, match=r"targets: null there, \"\w{64}\" here; .*samples: 2 th"):
        other.set_state(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequences": []}, r"sequences: expected arrays \(T, ...\), got none"),
        ({"sequences": [np.ones(2), 3]}, r"sequences\[1\]: expected numbers \(T, ...\), got int 3"),
        (
            {"sequences": [np.ones(2), np.ones(3, int)]},
            r"sequences\[1\]: expected \(T\) of float64, as the first has it, .* of int64",
        ),
        (
            {"bounds": [2, 4]},
            r"bounds: expected the last to be at least 5, .*sequences\[1\], got 4",
        ),
        ({"bounds": [5, 5]}, r"bounds: expected ascending lengths, got \[5, 5\]"),
        ({"bounds": []}, r"bounds: expected ascending lengths, got \[\]"),
        ({"bounds": [0, 5]}, r"bounds\[0\]: expected an integer in"),
        ({"batch": 0}, "batch: expected an integer in"),
        ({"labels": [1, 2]}, r"labels: expected 3 numbers .* got shape \(2,\) of int64"),
        ({"labels": 1}, r"labels: expected 3 numbers .* got shape \(\)"),
        ({"labels": ["a", "b", "c"]}, "labels: expected 3 numbers .* of <U1"),
        (
            {"targets": [np.ones(2)] * 3},
            r"targets\[1\]: expected 5 steps, a target for each, got 2",
        ),
        ({"targets": [np.ones(2)]}, "targets: expected 3 sequences of them, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"sequences": [np.ones(n) for n in (2, 5, 0)], "batch": 2, **change}
    with pytest.raises(ValueError, match=message):
        Buckets(**arguments)
