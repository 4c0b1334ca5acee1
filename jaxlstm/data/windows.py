"""Windows of numeric series, with the steps that follow each: what a forecaster learns from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlstm.data.position import (
    Resumable,
    check_count,
    check_seed,
    check_sequences,
    check_shard,
    check_targets,
    fingerprint,
    permutation,
)


class WindowBatch(NamedTuple):
    inputs: np.ndarray  # (T, B, D), the dtype of the series
    targets: np.ndarray  # (horizon, B, E): the steps after the inputs
    valid: np.ndarray  # (B,) booleans: whether there is a window, or zeros that fill the batch
    series: np.ndarray  # (B,) int32: which series it is of; -1 where there is none
    start: np.ndarray  # (B,) int64: the time of its first step; -1 where there is none


class Windows(Resumable[WindowBatch]):
    """Batches of windows, each window once an epoch, over and over.

    A window is T steps of a series, as inputs, and the `horizon` steps that follow, as targets;
    windows begin at 0, stride, 2 stride, ... as long as both fit. The last batch of an epoch is
    filled with zeros, which `valid` marks, so that all have one shape: the loss is
    `(valid * loss).sum() / valid.sum()`, over all shards.

    To hold out the end of a series without a look ahead, train on `series[:split]` and test on
    `series[split - window:]`, whose targets all lie behind the split. For targets at every step,
    one step ahead, take a horizon of 1 and `np.concatenate([inputs[1:], targets])`.

    Args:
      series: (N, D) or (N,) numbers, one series; or a list of such, of any lengths. (N,) counts
        as (N, 1).
      window: T, steps of inputs.
      horizon: steps of targets.
      stride: steps between the beginnings of windows.
      batch: B, windows in a batch.
      targets: what to forecast if it is not the series itself: (N, E) or (N,) numbers with the
        same times, or a list of such.
      seed: of the order; a new one each epoch. None for the order of series and time.
      shard: (index, count): which process this is, of how many; each has B / count windows of
        every batch.

    Attributes:
      samples: how many windows there are.
      short: the series that are too short for a window.

    Raises:
      ValueError: if an argument does not fit, or there is no window.

    Example:
      >>> import numpy as np
      >>> from jaxlstm.data.windows import Windows
      >>> windows = Windows(np.arange(8.0), window=3, horizon=2, batch=3)
      >>> batch = next(windows)
      >>> batch.inputs.shape, batch.inputs[:, 1, 0].tolist(), batch.targets[:, 1, 0].tolist()
      ((3, 3, 1), [1.0, 2.0, 3.0], [4.0, 5.0])
      >>> windows.samples, next(windows).valid.tolist()
      (4, [True, False, False])
    """

    def __init__(
        self,
        series: Any,
        window: int,
        *,
        horizon: int = 1,
        stride: int = 1,
        batch: int,
        targets: Any = None,
        seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
    ):
        self._series = _as_series(series, "series")
        self._targets = self._series
        if targets is not None:
            self._targets = check_targets(_as_series(targets, "targets"), self._series)
        self._window, self._horizon = check_count(window, "window"), check_count(horizon, "horizon")
        self._stride, self._batch = check_count(stride, "stride"), check_count(batch, "batch")
        self._seed = check_seed(seed)
        shards, self._rows = check_shard(shard, self._batch)
        span = self._window + self._horizon
        times = [len(s) for s in self._series]
        counts = [max(0, (steps - span) // self._stride + 1) for steps in times]
        self._ends = np.cumsum(counts)  # of each series' windows, counted through
        self._firsts = self._ends - counts
        self.samples = int(self._ends[-1])
        self.short = tuple(i for i, count in enumerate(counts) if count == 0)
        if self.samples == 0:
            raise ValueError(
                f"series: expected at least {span} steps, a window and its horizon, "
                f"got {max(times)}"
            )
        super().__init__(
            "windows",
            {
                "sha256": fingerprint(*self._series),
                "targets": None if targets is None else fingerprint(*self._targets),
                "series": len(self._series),
                "window": self._window,
                "horizon": self._horizon,
                "stride": self._stride,
                "batch": self._batch,
                "seed": self._seed,
                "shards": shards,
            },
        )

    def _plan(self, epoch: int) -> np.ndarray:
        order = permutation(self.samples, self._seed, epoch)
        fill = np.full(-self.samples % self._batch, -1, order.dtype)
        return np.concatenate([order, fill]).reshape(-1, self._batch)

    def _take(self, entry: np.ndarray) -> WindowBatch:
        number = entry[self._rows]
        valid = number >= 0
        which = np.where(valid, np.searchsorted(self._ends, number, side="right"), -1)
        start = np.where(valid, (number - self._firsts[which]) * self._stride, -1)
        places = [
            (row, series, time)
            for row, (series, time) in enumerate(zip(which.tolist(), start.tolist(), strict=True))
            if series >= 0
        ]
        return WindowBatch(
            _gather(self._series, self._window, places, len(number), 0),
            _gather(self._targets, self._horizon, places, len(number), self._window),
            valid,
            which.astype(np.int32),
            start.astype(np.int64),
        )


def _as_series(given: Any, argument: str) -> list[np.ndarray]:
    several = isinstance(given, list | tuple)
    arrays = check_sequences(given if several else [np.asarray(given)], argument)
    for number, a in enumerate(arrays):
        if a.ndim > 2:
            where = f"{argument}[{number}]" if several else argument
            raise ValueError(f"{where}: expected (N, D) or (N,), got shape {a.shape}")
    return [a[:, None] if a.ndim == 1 else a for a in arrays]


def _gather(
    series: Sequence[np.ndarray],
    steps: int,
    places: Sequence[tuple[int, int, int]],
    rows: int,
    behind: int,
) -> np.ndarray:
    """`steps` steps of the series from `behind` each place on, (steps, rows, D), else zeros."""
    out = np.zeros((steps, rows, series[0].shape[1]), series[0].dtype)
    for row, number, time in places:
        out[:, row] = series[number][time + behind : time + behind + steps]
    return out
