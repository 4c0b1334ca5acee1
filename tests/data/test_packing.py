from collections import Counter

import jax
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.data.packing import Packing, pack


def epoch_of(packing, epoch=0):
    return [next(packing) for _ in range(packing.batches(epoch))]


@pytest.mark.parametrize("case", range(12))
def test_each_sequence_comes_once_an_epoch_in_one_piece(case):
    rng = np.random.default_rng(case)
    length, batch, pool = (int(n) for n in rng.integers(1, 9, 3))
    sequences = [
        rng.normal(size=(n, 2)).astype(np.float32)
        for n in rng.integers(1, length + 1, rng.integers(1, 50))
    ]
    steps = [rng.integers(0, 9, len(s)) for s in sequences]
    seed = None if case % 3 == 0 else case
    packing = Packing(sequences, length, batch, targets=steps, pool=pool, seed=seed)
    for epoch in range(2):
        seen, filled = Counter(), 0
        batches = epoch_of(packing, epoch)
        for b in batches:
            assert b.inputs.shape == (length, batch, 2)
            assert b.resets.shape == b.mask.shape == b.segment.shape == b.targets.shape
            assert (b.resets.dtype, b.mask.dtype, b.segment.dtype) == (bool, bool, np.int32)
            np.testing.assert_array_equal(b.mask, b.segment >= 0)
            assert not b.inputs[~b.mask].any()
            assert not b.targets[~b.mask].any()
            filled += b.mask.sum()
            for row in range(batch):
                begins = np.flatnonzero(b.resets[:, row])
                assert len(begins) == len(set(b.segment[:, row]) - {-1})
                for begin in begins:
                    number = int(b.segment[begin, row])
                    seen[number] += 1
                    steps_here = slice(begin, begin + len(sequences[number]))
                    assert (b.segment[steps_here, row] == number).all()
                    np.testing.assert_array_equal(b.inputs[steps_here, row], sequences[number])
                    np.testing.assert_array_equal(b.targets[steps_here, row], steps[number])
                    assert begin == 0 or b.mask[begin - 1, row]  # end to end
        assert seen == Counter(range(len(sequences)))
        assert packing.fill(epoch) == filled / (len(batches) * batch * length)


def test_scan_runs_each_sequence_as_if_alone():
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, 3)) for n in (4, 2, 7, 1, 3, 3, 6)]
    cell = jl.gru(5)
    params = cell.init(jax.random.key(0), sequences[0][0])
    for b in epoch_of(Packing(sequences, 8, 2, seed=1)):
        carry = cell.initial_carry(params, b.inputs[0])
        carry = jax.tree.map(jax.numpy.ones_like, carry)  # of the batch before: must not matter
        _, ys = jl.scan(cell, params, b.inputs, carry, resets=b.resets, mask=b.mask)
        for number in set(b.segment.ravel().tolist()) - {-1}:
            _, alone = jl.scan(cell, params, sequences[number])
            there = np.asarray(ys).swapaxes(0, 1)[number == b.segment.T]
            np.testing.assert_allclose(there, alone, atol=1e-12)  # float64, other orders of sums


@pytest.mark.parametrize("case", range(8))
def test_rows_take_what_fits_best(case):
    rng = np.random.default_rng(case)
    capacity = int(rng.integers(3, 20))
    lengths = rng.integers(1, capacity + 1, 40).tolist()
    rows, room = [], []  # best fit decreasing by looking at every row
    for number in sorted(range(40), key=lambda n: (-lengths[n], n)):
        fits = [(left, row) for row, left in enumerate(room) if left >= lengths[number]]
        if not fits:
            rows.append([])
            room.append(capacity)
        row = min(fits)[1] if fits else -1
        rows[row].append(number)
        room[row] -= lengths[number]
    assert pack(range(40), lengths, capacity) == rows
    assert sum(lengths) <= capacity * len(rows) <= 2 * sum(lengths) + capacity


def test_a_larger_pool_fills_the_rows_better():
    rng = np.random.default_rng(0)
    sequences = [np.zeros(n) for n in rng.integers(1, 65, 4096)]
    small, large = (Packing(sequences, 64, 8, pool=pool, seed=0).fill() for pool in (64, 1024))
    assert 0.92 < small < 0.95
    assert large > 0.975


def test_without_a_seed_the_pools_come_in_order():
    sequences = [np.full(n, n) for n in (1, 3, 2, 4, 4, 1)]
    batches = epoch_of(Packing(sequences, 4, 2, pool=3))
    assert [b.segment.T.tolist() for b in batches] == [
        [[1, 1, 1, 0], [2, 2, -1, -1]],
        [[3] * 4, [4] * 4],
        [[5, -1, -1, -1], [-1] * 4],
    ]
    assert all(b.targets is None for b in batches)


def test_another_pool_and_length_are_another_iterator():
    sequences = [np.ones(2), np.ones(3)]
    state = Packing(sequences, 3, 2, seed=0).get_state()
    with pytest.raises(ValueError, match="another iterator: length: 3 there, 4 here; pool: 1024 t"):
        Packing(sequences, 4, 2, seed=0, pool=8).set_state(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sequences": [np.ones(3), np.ones(5), np.ones(9)]},
            r"sequences\[1\]: expected 1 to 4 steps, a row's length, got 5; 2 are so",
        ),
        ({"sequences": [np.ones(0)]}, r"sequences\[0\]: expected 1 to 4 steps, .*, got 0$"),
        ({"sequences": [np.ones(2), "abc"]}, r"sequences\[1\]: expected numbers \(T, ...\), got"),
        ({"targets": [np.ones(2)]}, r"targets\[0\]: expected 3 steps, a target for each, got 2"),
        ({"length": 0}, "length: expected an integer in"),
        ({"batch": None}, "batch: expected an integer in .* got NoneType None"),
        ({"pool": 0}, "pool: expected an integer in"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"sequences": [np.ones(3)], "length": 4, "batch": 2, **change}
    with pytest.raises(ValueError, match=message):
        Packing(**arguments)
