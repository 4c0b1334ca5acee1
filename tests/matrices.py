"""Matrices of tests of which `make test` runs a few and `make laws` the others."""

import itertools

import pytest


def few(values, long):
    """Each of `values`, marked long if it is in `long`."""
    return [pytest.param(v, marks=[pytest.mark.long] if v in long else []) for v in values]


def crossed(*axes):
    """Every combination; of those that are not long some one has each value of each axis."""
    longest = max(map(len, axes))
    some = {tuple(n % len(axis) for axis in axes) for n in range(longest)}
    every = itertools.product(*(range(len(axis)) for axis in axes))
    values = lambda at: (axis[n] for axis, n in zip(axes, at, strict=True))
    mark = lambda at: [] if at in some else [pytest.mark.long]
    return [pytest.param(*values(at), marks=mark(at)) for at in every]
