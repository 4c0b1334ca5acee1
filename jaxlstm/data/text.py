"""Text as numbers: vocabularies, and contiguous streams of windows for truncated BPTT."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxlstm.data.position import Resumable, check_count, check_shard, fingerprint

UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"


def words(text: str) -> list[str]:
    """The words of a text, split at white space, with `<eos>` at the end of each line.

    As the Penn Treebank's language-modelling files are read (Mikolov et al. 2010).
    """
    out: list[str] = []
    for line in text.splitlines():
        out += line.split()
        out.append(END_OF_LINE)
    return out


@dataclass(frozen=True)
class Vocabulary:
    """Symbols (characters or words) and their numbers; number 0 is the unknown symbol.

    Attributes:
      symbols: by number, the first `<unk>`.
    """

    symbols: tuple[str, ...]

    @classmethod
    def build(cls, symbols: Iterable[str], size: int | None = None) -> "Vocabulary":
        """The most frequent symbols of a training text, ties in the order of code points.

        Args:
          symbols: the training text: a string for characters, a list for words.
          size: how many to keep at most, `<unk>` included; None for all.

        Returns:
          The vocabulary.

        Raises:
          ValueError: if there are no symbols, or `size` is less than 2.
        """
        if size is not None and size < 2:
            raise ValueError(f"size: expected at least 2 (<unk> and a symbol), got {size}")
        counts = Counter(symbols)
        counts.pop(UNKNOWN, None)
        if not counts:
            raise ValueError("symbols: expected a text, got none")
        ranked = sorted(counts, key=lambda s: (-counts[s], s))
        return cls((UNKNOWN, *(ranked if size is None else ranked[: size - 1])))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, symbols: Iterable[str]) -> np.ndarray:
        """Numbers (N,) int32 of the symbols; those not in the vocabulary become 0."""
        number = {s: n for n, s in enumerate(self.symbols)}
        return np.fromiter((number.get(s, 0) for s in symbols), np.int32)

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """The symbols of numbers."""
        return [self.symbols[n] for n in numbers]


class Window(NamedTuple):
    inputs: np.ndarray  # (T, B) int32
    targets: np.ndarray  # (T, B) int32: the inputs one step later
    fresh: bool  # whether the streams begin here, and with them the carry


class Streams(Resumable[Window]):
    """Windows of `batch` contiguous streams of one text, over and over.

    The text is cut in `batch` equal streams; window k + 1 goes on where window k ended, so
    that the carry can be handed on. At the end of the streams an epoch is over and they
    begin again. What does not fill a stream or a window at the end is left out.

    Args:
      tokens: (N,) integers in [0, 2**31), the text.
      batch: B, the number of streams.
      window: T, steps in a window.
      shard: (index, count): which process this is, of how many; each has B / count of the
        streams, the first those that come first in the text.

    Attributes:
      windows: how many an epoch has.

    Raises:
      ValueError: if the tokens are anything else, or too few for one window in each stream, or
        the streams can't be divided among the shards.

    Example:
      >>> import numpy as np
      >>> from jaxlstm.data.text import Streams
      >>> streams = Streams(np.arange(11), batch=2, window=2)
      >>> next(streams).inputs.T.tolist(), next(streams).inputs.T.tolist()
      ([[0, 1], [5, 6]], [[2, 3], [7, 8]])
      >>> state = streams.get_state()
      >>> state["epoch"], state["window"], sorted(state["identity"])
      (1, 0, ['batch', 'format', 'kind', 'sha256', 'shards', 'window'])
      >>> Streams(np.arange(11), batch=2, window=1).set_state(state)
      Traceback (most recent call last):
      ValueError: state: of another iterator: window: 2 there, 1 here
    """

    def __init__(
        self,
        tokens: Sequence[int] | np.ndarray,
        batch: int,
        window: int,
        shard: tuple[int, int] = (0, 1),
    ):
        tokens = _check_tokens(tokens)
        batch, self._window = check_count(batch, "batch"), check_count(window, "window")
        shards, rows = check_shard(shard, batch)
        length = len(tokens) // batch
        self.windows = max(0, (length - 1) // self._window)  # in an epoch
        if self.windows == 0:
            raise ValueError(
                f"tokens: a text of {len(tokens):,} is too short for {batch} streams with windows "
                f"of {window}: at least {batch * (window + 1):,} are needed"
            )
        self._streams = tokens[: length * batch].reshape(batch, length)[rows]
        identity = {"sha256": fingerprint(tokens), "batch": batch, "window": self._window}
        super().__init__("streams", {**identity, "shards": shards}, unit="window")

    def _plan(self, epoch: int) -> range:
        return range(self.windows)

    def _take(self, entry: int) -> Window:
        start = entry * self._window
        span = self._streams[:, start : start + self._window + 1].T
        return Window(span[:-1], span[1:], fresh=entry == 0)


def _check_tokens(tokens: Sequence[int] | np.ndarray) -> np.ndarray:
    found = np.asarray(tokens)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        got = f"{found.shape} of {found.dtype}"
    elif found.size and not 0 <= found.min() <= found.max() < 2**31:
        got = f"some from {found.min()} to {found.max()}"
    else:
        return found.astype(np.int32)
    raise ValueError(f"tokens: expected (N,) integers in [0, 2**31), got {got}")
