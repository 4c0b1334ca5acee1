"""Ragged sequences in batches of like lengths: a few shapes, and little padding."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from jaxlstm.data.position import (
    NO_NUMBERS,
    Resumable,
    check_count,
    check_seed,
    check_sequences,
    check_shard,
    check_targets,
    fingerprint,
    permutation,
)


class BucketBatch(NamedTuple):
    inputs: np.ndarray  # (T, B, ...), zeros behind each length; T is the bucket's bound
    lengths: np.ndarray  # (B,) int32
    sample: np.ndarray  # (B,) int32: which sequence it is; -1, with length 0, where there is none
    targets: np.ndarray | None  # (T, B, ...), zeros behind each length
    labels: np.ndarray | None  # (B, ...), zeros where there is no sequence


class Buckets(Resumable[BucketBatch]):
    """Batches of sequences that are padded to one of a few lengths, each once an epoch, for ever.

    A sequence goes in the bucket with the least bound that it fits, and a batch has sequences of
    one bucket. The last batch of each bucket is filled with rows of length 0.

    Args:
      sequences: arrays (T_i, ...) of numbers, alike but for T_i, which may be 0.
      batch: B, sequences in a batch.
      bounds: the lengths to pad to, ascending, the last no less than the longest sequence; None
        for the four, among 64 quantiles of the lengths, that pad the least.
      targets: for each sequence an array (T_i, ...), one target a step; or None.
      labels: (N, ...), one label a sequence; or None.
      seed: of the order, of sequences and of batches; a new one each epoch. None for the order
        of the buckets, and in them of the sequences.
      shard: (index, count): which process this is, of how many; each has B / count rows of
        every batch.

    Attributes:
      samples: how many sequences there are.
      bounds: the lengths that are padded to.

    Raises:
      ValueError: if an argument does not fit; the sequence is named.

    Example:
      >>> import numpy as np
      >>> from jaxlstm.data.buckets import Buckets
      >>> buckets = Buckets([np.ones(n) for n in (2, 5, 1, 4)], batch=2, bounds=[2, 5])
      >>> batch = next(buckets)
      >>> batch.inputs.T.tolist(), batch.lengths.tolist(), batch.sample.tolist()
      ([[1.0, 1.0], [1.0, 0.0]], [2, 1], [0, 2])
      >>> next(buckets).inputs.shape, round(buckets.fill(), 3)
      ((5, 2), 0.857)
    """

    def __init__(
        self,
        sequences: Iterable[Any],
        batch: int,
        *,
        bounds: Sequence[int] | None = None,
        targets: Iterable[Any] | None = None,
        labels: Any = None,
        seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
    ):
        self._sequences = check_sequences(sequences, "sequences")
        self.samples = len(self._sequences)
        self._lengths = np.array([len(s) for s in self._sequences])
        self._targets = None if targets is None else check_targets(targets, self._sequences)
        self._labels = None if labels is None else np.asarray(labels)
        if self._labels is not None:
            _check_labels(self._labels, self.samples)
        self._batch, self._seed = check_count(batch, "batch"), check_seed(seed)
        shards, self._rows = check_shard(shard, self._batch)
        self.bounds = _check_bounds(_choose_bounds(self._lengths) if bounds is None else bounds)
        longest = int(self._lengths.argmax())
        if self._lengths[longest] > self.bounds[-1]:
            raise ValueError(
                f"bounds: expected the last to be at least {self._lengths[longest]}, the length "
                f"of sequences[{longest}], got {self.bounds[-1]}"
            )
        self._bucket = np.searchsorted(self.bounds, self._lengths)
        super().__init__(
            "buckets",
            {
                "sha256": fingerprint(*self._sequences),
                "targets": None if self._targets is None else fingerprint(*self._targets),
                "labels": None if self._labels is None else fingerprint(self._labels),
                "samples": self.samples,
                "bounds": list(self.bounds),
                "batch": self._batch,
                "seed": self._seed,
                "shards": shards,
            },
        )

    def fill(self, epoch: int = 0) -> float:
        """The share of an epoch's steps that are a sequence's, not padding; one for all epochs."""
        steps = sum(self.bounds[bucket] * self._batch for bucket, _ in self._entries(epoch))
        return float(self._lengths.sum() / steps)

    def _plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        order = permutation(self.samples, self._seed, epoch)
        batches = []
        for bucket in range(len(self.bounds)):
            members = order[self._bucket[order] == bucket]
            fill = np.full(-len(members) % self._batch, -1, order.dtype)
            rows = np.concatenate([members, fill]).reshape(-1, self._batch)
            batches += [(bucket, sample) for sample in rows]
        return [batches[i] for i in permutation(len(batches), self._seed, epoch, stream=1)]

    def _take(self, entry: tuple[int, np.ndarray]) -> BucketBatch:
        steps, sample = self.bounds[entry[0]], entry[1][self._rows]
        there = sample >= 0
        labels = None
        if self._labels is not None:
            labels = np.zeros((len(sample), *self._labels.shape[1:]), self._labels.dtype)
            labels[there] = self._labels[sample[there]]
        return BucketBatch(
            _padded(self._sequences, sample, steps),
            np.where(there, self._lengths[sample], 0).astype(np.int32),
            sample.astype(np.int32),
            None if self._targets is None else _padded(self._targets, sample, steps),
            labels,
        )


def _check_labels(labels: np.ndarray, samples: int) -> None:
    if labels.shape[:1] != (samples,) or labels.dtype.kind in NO_NUMBERS:
        raise ValueError(
            f"labels: expected {samples} numbers or arrays of them, one for each sequence, "
            f"got shape {labels.shape} of {labels.dtype}"
        )


def _choose_bounds(lengths: np.ndarray, most: int = 4, quantiles: int = 64) -> list[int]:
    """The bounds, among the quantiles of the lengths, with the fewest padded steps."""
    ordered = np.sort(lengths)
    ends = -(-np.arange(1, quantiles + 1) * len(ordered) // quantiles) - 1
    bounds = np.unique(np.maximum(ordered[ends], 1))
    fitting = np.searchsorted(ordered, bounds, side="right").tolist()
    bounds = bounds.tolist()
    # best[j]: the steps, and the bounds, that take whatever fits in bounds[j]
    best = [(n * bound, [bound]) for n, bound in zip(fitting, bounds, strict=True)]
    above = lambda i, j: (
        best[i][0] + (fitting[j] - fitting[i]) * bounds[j],
        [*best[i][1], bounds[j]],
    )
    for _ in range(most - 1):
        best = [min([best[j], *(above(i, j) for i in range(j))]) for j in range(len(bounds))]
    return best[-1][1]


def _check_bounds(bounds: Sequence[int]) -> tuple[int, ...]:
    checked = tuple(check_count(b, f"bounds[{i}]") for i, b in enumerate(bounds))
    if not checked or any(a >= b for a, b in pairwise(checked)):
        raise ValueError(f"bounds: expected ascending lengths, got {list(bounds)}")
    return checked


def _padded(sequences: Sequence[np.ndarray], sample: np.ndarray, steps: int) -> np.ndarray:
    """The sequences with the numbers (B,), padded with zeros: (steps, B, ...); zeros for -1."""
    out = np.zeros((steps, len(sample), *sequences[0].shape[1:]), sequences[0].dtype)
    for row, number in enumerate(sample.tolist()):
        if number >= 0:
            out[: len(sequences[number]), row] = sequences[number]
    return out
