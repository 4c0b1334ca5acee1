"""What holds us to the oracles can fail, and the table says what was found."""

import json

import numpy as np
import pytest

from tests.parity.__main__ import table
from tests.parity.agreement import RECORD, agree

LABELS = {"cell": "lstm", "options": "lengths", "oracle": "PyTorch"}


def test_what_differs_fails(monkeypatch):
    monkeypatch.delenv(RECORD, raising=False)
    agree([np.array([1.0, -50.0])], [np.array([1.0, -50.4])], 1e-2, **LABELS)  # of 50.4
    with pytest.raises(AssertionError, match=r"lstm \(lengths\) and PyTorch: values differ by 2"):
        agree(np.array([0.1, 0.02]), np.array([0.1, 0.0]), 1e-2, **LABELS)
    with pytest.raises(AssertionError, match=r"gradients of shapes \(2,\) and \(1,\)"):
        agree(np.zeros(2), np.zeros(1), 1, **LABELS, what="gradients")
    with pytest.raises(AssertionError, match="not finite"):
        agree(np.array([0, np.nan]), np.zeros(2), 1, **LABELS)
    with pytest.raises(AssertionError):
        agree([np.zeros(1)], [np.zeros(1), np.zeros(1)], 1, **LABELS)


def test_the_table_has_the_largest_error_of_repeats(tmp_path, monkeypatch):
    monkeypatch.setenv(RECORD, str(tmp_path / "rows"))
    for error in (0.5, 0.75, 0.25):
        agree(np.array([error]), np.zeros(1), 1, **LABELS)
    agree(np.ones(1), np.ones(1), 1e-12, **{**LABELS, "cell": "gru"}, what="gradients")
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert table(rows).splitlines() == [
        "| gru | lengths | PyTorch | gradients | 1e-12 | 0.0e+00 |",
        "| lstm | lengths | PyTorch | values | 1e+00 | 7.5e-01 |",
    ]
