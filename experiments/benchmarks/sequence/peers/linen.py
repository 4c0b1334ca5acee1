"""Flax Linen: `nn.RNN` of its cells, `nn.Bidirectional` and a `Sequential` of them."""

import jax.numpy as jnp
from flax import linen as nn

from experiments.benchmarks.sequence.cases import Case, Given
from experiments.benchmarks.sequence.program import (
    Program,
    jax_program,
    jax_step,
    transposed,
    valid,
)
from jaxlstm.interop.linen import to_linen


def build(case: Case, given: Given, variant: str) -> Program:
    if case.row == "step":
        cell, weights = to_linen(given.layer, given.params)
        step = lambda weights, carry, x: cell.apply({"params": weights}, carry, x)[0]
        return jax_step(step, weights, given)
    module, write = _layers(given) if case.row == "layers" else _layer(case, given)

    def function(weights, xs, lengths):
        if lengths is None:
            return module.apply({"params": weights}, xs)
        ys = module.apply({"params": weights}, xs, seq_lengths=lengths)
        return jnp.where(valid(lengths, len(xs)), ys, 0)  # which it leaves as they come

    return jax_program(case, given, function, write(given.params), transposed(write, given.params))


def _layer(case, given):
    module, _ = to_linen(given.layer, given.params)
    if case.row == "bidirectional":
        return module.clone(time_major=True), lambda params: to_linen(given.layer, params)[1]
    write = lambda params: {"cell": to_linen(given.layer, params)[1]}
    return nn.RNN(module, time_major=True), write


def _layers(given):
    from jaxlstm.interop.calls import call_of

    cells = call_of(given.layer).arguments["layers"]
    modules = [to_linen(*pair)[0] for pair in zip(cells, given.params, strict=True)]

    def write(params):
        written = (to_linen(*pair)[1] for pair in zip(cells, params, strict=True))
        return {f"layers_{n}": {"cell": weights} for n, weights in enumerate(written)}

    return nn.Sequential([nn.RNN(module, time_major=True) for module in modules]), write
