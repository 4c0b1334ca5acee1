"""Whether two contenders gave the same numbers."""

from collections.abc import Mapping

import numpy as np

# Float32 rounds to 6e-8; sums over time and batch, and each library's own tanh, add up to some
# 1e-5 of the largest value over 2000 steps. A wrong gate or bias is wrong by 1e-2 and more.
TOLERANCE = 1e-3


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference over the largest value of b; infinite if either is not finite."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.inf
    largest = float(np.abs(b).max(initial=0))
    distance = float(np.abs(a - b).max(initial=0))
    return distance / largest if largest else (np.inf if distance else 0.0)


def check_same(
    got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float = TOLERANCE
) -> float:
    """The largest difference of any array, relative to its largest value.

    Raises:
      ValueError: if it is above the tolerance, or names or shapes differ.
    """
    if sorted(got) != sorted(expected):
        raise ValueError(f"results: expected {sorted(expected)}, got {sorted(got)}")
    worst = 0.0
    for name in expected:
        if got[name].shape != expected[name].shape:
            shapes = f"expected shape {expected[name].shape}, got {got[name].shape}"
            raise ValueError(f"{name}: {shapes}")
        off = difference(got[name], expected[name])
        if not off <= tolerance:
            expected_of = f"expected the reference's values within {tolerance} of the largest"
            raise ValueError(f"{name}: {expected_of}, got a difference of {off:.2g}")
        worst = max(worst, off)
    return worst
