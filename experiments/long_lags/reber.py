"""The embedded Reber grammar, and streams of it without an end.

Reber 1967; embedded by Fahlman 1991 and Cleeremans, Servan-Schreiber and McClelland 1989, as
Hochreiter and Schmidhuber 1997, figures 3 and 4, have it.
"""

import numpy as np

SYMBOLS = "BTPSXVE"
GRAMMAR = {  # from each state, the symbols that may come, and to where; both equally often
    0: (("B", 1),),
    1: (("T", 2), ("P", 3)),
    2: (("S", 2), ("X", 4)),
    3: (("T", 3), ("V", 5)),
    4: (("X", 3), ("S", 6)),
    5: (("P", 4), ("V", 6)),
    6: (("E", None),),
}
CONTINUAL = {  # the embedded grammar, its end joined to its beginning
    "begin": (("B", "which"),),
    "which": (("T", ("T", 0)), ("P", ("P", 0))),
    **{
        (outer, state): tuple(
            (symbol, (outer, "again" if to is None else to)) for symbol, to in ways
        )
        for outer in "TP"
        for state, ways in GRAMMAR.items()
    },
    ("T", "again"): (("T", "end"),),
    ("P", "again"): (("P", "end"),),
    "end": (("E", "begin"),),
}
LONGEST = 40  # of an embedded string that is kept; of a million strings 57 are longer


def reber(rng: np.random.Generator) -> tuple[str, list[str]]:
    """A string, and for each of its symbols but the first what might have come instead."""
    string, allowed, state = "", [], 0
    while state is not None:
        ways = GRAMMAR[state]
        allowed.append("".join(symbol for symbol, _ in ways))
        symbol, state = ways[rng.integers(len(ways))]
        string += symbol
    return string, allowed[1:]


def embedded(rng: np.random.Generator) -> tuple[str, list[str]]:
    """B, T or P, a Reber string, the same T or P again, E; and what may come after each symbol."""
    inner, allowed = reber(rng)
    outer = "TP"[rng.integers(2)]
    return f"B{outer}{inner}{outer}E", ["TP", "B", *allowed, outer, "E"]


def data_set(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random strings as arrays.

    Args:
      rng: a generator.
      count: N, how many.

    Returns:
      The symbols (N, LONGEST - 1) but the last of each string; which symbol comes next, and which
      ones may, (N, LONGEST - 1, 7), zero after the end.
    """
    xs = np.zeros((count, LONGEST - 1), np.int32)
    following = np.zeros((count, LONGEST - 1, len(SYMBOLS)), np.float32)
    legal = following.copy()
    for n in range(count):
        while len((found := embedded(rng))[0]) > LONGEST:
            continue
        string, allowed = found
        for t, symbol in enumerate(string[:-1]):
            xs[n, t] = SYMBOLS.index(symbol)
            following[n, t, SYMBOLS.index(string[t + 1])] = 1
            legal[n, t, [SYMBOLS.index(s) for s in allowed[t]]] = 1
    return xs, following, legal


def continual() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grammar without an end as tables.

    Returns:
      Of each state S the two symbols that may come, and the states that they lead to, (S, 2), both
      the same where there is one way; and which symbols these are, (S, 7) of booleans.
    """
    states = list(CONTINUAL)
    pairs = [(ways * 2)[:2] for ways in CONTINUAL.values()]
    symbols = np.array([[SYMBOLS.index(symbol) for symbol, _ in pair] for pair in pairs])
    following = np.array([[states.index(state) for _, state in pair] for pair in pairs])
    return symbols, following, (symbols[..., None] == np.arange(len(SYMBOLS))).any(1)
