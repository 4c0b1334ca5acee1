from collections import Counter

import numpy as np
import pytest

from jaxlstm.data.windows import Windows


def epoch_of(windows, epoch=0):
    return [next(windows) for _ in range(windows.batches(epoch))]


@pytest.mark.parametrize("case", range(12))
def test_each_window_comes_once_an_epoch_with_what_follows_it(case):
    rng = np.random.default_rng(case)
    window, horizon, stride, batch = (int(n) for n in rng.integers(1, 6, 4))
    series = [
        rng.normal(size=(n, 3)).astype(np.float32) for n in (0, *rng.integers(1, 30, 4), 25, 3)
    ]
    other = [rng.integers(0, 9, len(s)) for s in series] if case % 2 else None
    options = dict(horizon=horizon, stride=stride, batch=batch, targets=other, seed=case)
    windows = Windows(series, window, **options)
    expected = {
        (i, t)
        for i, s in enumerate(series)
        for t in range(0, len(s), stride)
        if t + window + horizon <= len(s)
    }
    for epoch in range(2):
        seen = Counter()
        for number, b in enumerate(epoch_of(windows, epoch)):
            width = 3 if other is None else 1
            assert b.inputs.shape == (window, batch, 3)
            assert b.targets.shape == (horizon, batch, width)
            assert b.inputs.dtype == np.float32
            assert (b.valid.dtype, b.series.dtype, b.start.dtype) == (bool, np.int32, np.int64)
            assert b.valid.all() or number == windows.batches(epoch) - 1
            for row in range(batch):
                if not b.valid[row]:
                    assert (b.series[row], b.start[row]) == (-1, -1)
                    assert not b.inputs[:, row].any()
                    assert not b.targets[:, row].any()
                    continue
                i, t = int(b.series[row]), int(b.start[row])
                seen[i, t] += 1
                follows = series[i] if other is None else other[i][:, None]
                after = t + window
                np.testing.assert_array_equal(b.inputs[:, row], series[i][t:after])
                np.testing.assert_array_equal(b.targets[:, row], follows[after : after + horizon])
        assert seen == Counter(expected)
    assert windows.samples == len(expected)
    assert set(windows.short) == set(range(len(series))) - {i for i, _ in expected}


def test_without_a_seed_they_come_in_the_order_of_series_and_time():
    series = [np.arange(4), np.arange(1), 10 + np.arange(3)]
    batches = epoch_of(Windows(series, 2, batch=2))
    starts = [(b.series.tolist(), b.start.tolist()) for b in batches]
    assert starts == [([0, 0], [0, 1]), ([2, -1], [0, -1])]
    assert Windows(series, 2, batch=2).short == (1,)


def test_the_end_is_held_out_without_a_look_ahead():
    series, split, window = np.arange(30), 20, 4
    train = epoch_of(Windows(series[:split], window, horizon=2, batch=3))
    test = epoch_of(Windows(series[split - window :], window, horizon=2, batch=3))
    assert max(b.targets.max() for b in train) == split - 1
    assert min(b.targets[:, b.valid].min() for b in test) == split


def test_a_batch_is_the_callers_to_write_on():
    series = np.arange(6.0)
    next(Windows(series, 2, batch=5)).inputs[:] = -1
    assert series.tolist() == [0, 1, 2, 3, 4, 5]


def test_other_targets_are_another_iterator():
    series = np.arange(9.0)
    state = Windows(series, 2, batch=2, targets=series).get_state()
    with pytest.raises(
        ValueError, match=r"another iterator: targets: \"\w{64}\" there, null here$"
    ):
        Windows(series, 2, batch=2).set_state(state)
    with pytest.raises(ValueError, match="window: 2 there, 3 here; horizon: 1 there, 2 here; str"):
        Windows(series, 3, horizon=2, stride=2, batch=2, targets=series).set_state(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"series": np.arange(5)}, "series: expected at least 6 steps, .*horizon, got 5"),
        ({"series": []}, r"series: expected arrays \(T, ...\), got none"),
        ({"series": [[], ()]}, r"series: expected arrays \(T, ...\), got \[\[\], \(\)\]"),
        ({"series": 3.0}, r"series\[0\]: expected numbers \(T, ...\), got"),
        ({"series": [1.0, 2.0]}, r"series\[0\]: expected numbers \(T, ...\), got float 1.0"),
        ({"series": np.array(["a"] * 9)}, r"series\[0\]: expected numbers"),
        ({"series": np.zeros((9, 2, 2))}, r"series: expected \(N, D\) or \(N,\), got shape"),
        (
            {"series": [np.zeros((9, 2)), np.zeros((9, 3))]},
            r"series\[1\]: expected \(T, 2\) of float64, as the first has it, got shape \(9, 3\)",
        ),
        ({"targets": np.arange(8)}, r"targets\[0\]: expected 9 steps, a target for each, got 8"),
        ({"targets": [np.arange(9)] * 2}, "targets: expected 1 sequences of them, got 2"),
        ({"window": 0}, "window: expected an integer in .*, got int 0"),
        ({"horizon": 0}, "horizon: expected an integer in .*, got int 0"),
        ({"stride": 0}, "stride: expected an integer in .*, got int 0"),
        ({"batch": 2.0}, "batch: expected an integer in .*, got float 2.0"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"series": np.arange(9.0), "window": 4, "horizon": 2, "batch": 2, **change}
    with pytest.raises(ValueError, match=message):
        Windows(**arguments)
