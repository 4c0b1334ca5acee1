"""A sample of the battery of `make faults`: each fault, a few times."""

import pytest

from tests import matrices
from tests.faults import (
    damage,
    devices,
    disk,
    hostile,
    kills,
    numbers,
    processes,
    skew,
    writers,
)

SAMPLE = {
    "kills": lambda f: kills.at_random_times(f, 1),
    "calls": lambda f: kills.at_system_calls(f, 1),
    "truncated": lambda f: damage.truncated(f, 60),
    "flipped": lambda f: damage.flipped(f, 40),
    "zeroed": lambda f: damage.zeroed(f, 20),
    "failing": lambda f: disk.failing(f, 4),
    "writers": lambda f: writers.two(f, 1),
    "devices": lambda f: devices.other(f),
    "skew": lambda f: skew.skewed(f, 40),
    "hostile": lambda f: hostile.hostile(f, 10),
    "numbers": lambda f: numbers.wrong(f, 3),
    "samples": lambda f: kills.samples(f, 2),
    "failing-save": lambda f: writers.failing(f, 2),
    "equal": lambda f: processes.equal(f, (2,)),
}


# With much of their own in tests/train and tests/experiments.
LONG = ("kills", "failing", "writers", "numbers", "equal")
NAMES = matrices.few(SAMPLE, LONG)


@pytest.mark.xdist_group("faults")  # one process that all runs are forks of
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_does_no_harm(name, tmp_path):
    outcome = SAMPLE[name](tmp_path / name)
    if outcome.detail.startswith("skipped"):
        pytest.skip(outcome.detail)
    assert outcome.count > 0
    assert outcome.passed == outcome.count, outcome.detail
