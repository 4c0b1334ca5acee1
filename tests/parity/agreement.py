"""Agreement with an outside oracle: held to a tolerance, and written down for docs/parity.md."""

import json
import os
from pathlib import Path

import jax
import numpy as np

RECORD = "JAXLSTM_PARITY_RECORD"  # a file that `make parity` reads; unset: nothing is written


def agree(actual, expected, tolerance, *, cell, options="", oracle, what="values"):
    """Holds two trees to each other: |a - e| at most tolerance times max(1, the largest |e|).

    Args:
      actual: ours.
      expected: the oracle's, of the same structure.
      tolerance: of a difference.
      cell: the factory, "lstm".
      options: of the cell and the scan, "projection, lengths".
      oracle: "PyTorch", "NumPy loop", ...
      what: "values" or "gradients".
    """
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected) > 0
    largest = 0.0
    for a, e in zip(actual, expected, strict=True):
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        assert a.shape == e.shape
        assert np.isfinite(e).all()
        if e.size:
            largest = max(largest, float(np.abs(a - e).max() / max(1.0, np.abs(e).max())))
    assert largest <= tolerance, f"{cell} ({options}) and {oracle}: {what} differ by {largest:.2e}"
    if os.environ.get(RECORD):
        row = dict(cell=cell, options=options, oracle=oracle, what=what)
        row |= dict(tolerance=tolerance, largest=largest)
        with Path(os.environ[RECORD]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
