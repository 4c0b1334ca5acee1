"""The floor: an interpolated n-gram model with Witten-Bell smoothing.

    p(w | h) = (c(hw) + d(h) p(w | h')) / (c(h) + d(h))

with h' the history h without its oldest symbol, c counts, d(h) the number of different
symbols seen after h; the last history is empty, and behind it all symbols are equal.

Witten and Bell 1991, IEEE Transactions on Information Theory 37(4); in this interpolated
form Chen and Goodman 1998, section 2.5.
"""

import numpy as np


def cross_entropies(train: np.ndarray, test: np.ndarray, symbols: int, order: int) -> list[float]:
    """Nats a symbol of `test` under the models of order 1 to `order` counted on `train`.

    The test text is one stream: its first symbols have the histories there are.

    Args:
      train: (N,) integers in [0, symbols).
      test: (M,) integers in [0, symbols), M > 1; the first is not predicted, as there is
        nothing to predict it from.
      symbols: the size of the vocabulary.
      order: the largest n; an n-gram's history has n - 1 symbols.

    Returns:
      The mean of -log p for each order.
    """
    train, test = train.astype(np.int64), test.astype(np.int64)
    joined = np.concatenate([train, test])
    split = len(train)
    probability = np.full(len(test) - 1, 1.0 / symbols)
    history = np.zeros(len(joined), np.int64)  # the number of the history before each symbol
    nats = []
    for length in range(order):
        if length:
            # The history of one symbol more: the shorter one before it, and the symbol before.
            longer = np.full(len(joined), -1)
            longer[1:] = history[:-1] * symbols + joined[:-1]
            longer[:length] = -1 - np.arange(length)
            longer[split : split + length] = -1 - order - np.arange(length)
            history = np.unique(longer, return_inverse=True)[1]
        grams = history * symbols + joined
        seen, counts = np.unique(grams[length:split], return_counts=True)
        owner, first = np.unique(seen // symbols, return_index=True)
        totals = np.add.reduceat(counts, first)
        kinds = np.diff(np.append(first, len(seen)))

        asked_history, asked = history[split + 1 :], grams[split + 1 :]
        at = np.minimum(np.searchsorted(owner, asked_history), len(owner) - 1)
        known = owner[at] == asked_history
        place = np.minimum(np.searchsorted(seen, asked), len(seen) - 1)
        count = np.where(seen[place] == asked, counts[place], 0)
        smoothed = (count + kinds[at] * probability) / (totals[at] + kinds[at])
        probability = np.where(known, smoothed, probability)
        nats.append(float(-np.log(probability).mean()))
    return nats
