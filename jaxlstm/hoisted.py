"""Cells whose input products need no carry, done for all steps at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxlstm.base import Array, Carry, Params
from jaxlstm.sequence import steps


class HoistedUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` of a cell: `recur(weights(params), carry, inputs(params, x))` a step.

    For recurrences that `jaxlstm.gated` has no place for; derivatives are those of `lax.scan`.
    """

    inputs: Callable[[Params, Any], Any]  # of one step, or of a sequence (T, *B, D)
    recur: Callable[[Any, Carry, Any], tuple[Carry, Array]]
    weights: Callable[[Params], Any] = lambda params: params  # those of `recur`, taken apart once

    def __call__(self, params, carry, xs, *, valid, resets, initial, implementation):
        if implementation not in (None, "hoisted"):
            raise ValueError(
                f"implementation: expected 'hoisted' or 'reference', got {implementation!r}"
            )
        zs = self.inputs(params, xs)
        return steps(self.recur, self.weights(params), carry, zs, valid, resets, initial)

    def explain(self, params, xs):
        return {"hoisted": None}

    def step(self, params, carry, x):
        """One step: the cell's definition."""
        return self.recur(self.weights(params), carry, self.inputs(params, x))
