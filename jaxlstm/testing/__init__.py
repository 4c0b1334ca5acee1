"""The laws of a cell, to hold one's own cells to: `check_cell` runs them all."""

from jaxlstm.testing.laws import (
    LAWS,
    check_batch_axes,
    check_cell,
    check_continuation,
    check_derivatives,
    check_implementations,
    check_jit,
    check_options,
    check_padding,
    check_scan,
    check_times,
    check_traces,
    check_vmap,
)

__all__ = [
    "LAWS",
    "check_batch_axes",
    "check_cell",
    "check_continuation",
    "check_derivatives",
    "check_implementations",
    "check_jit",
    "check_options",
    "check_padding",
    "check_scan",
    "check_times",
    "check_traces",
    "check_vmap",
]
