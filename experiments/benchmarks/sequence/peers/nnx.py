"""Flax NNX: `nnx.RNN` of its `OptimizedLSTMCell`."""

import jax
from flax import nnx

from experiments.benchmarks.sequence.cases import Case, Given
from experiments.benchmarks.sequence.program import Program, jax_program, jax_step
from jaxlstm.interop.nnx import from_nnx, to_nnx


def build(case: Case, given: Given, variant: str) -> Program:
    cell = to_nnx(given.layer, given.params)
    module = cell if case.row == "step" else nnx.RNN(cell, time_major=True)
    graph, weights, rest = nnx.split(module, nnx.Param, ...)
    # Its counts of random numbers are to be of the trace that they are used in: new ones each time.
    merged = lambda weights: nnx.merge(graph, weights, jax.tree.map(lambda a: a, rest))
    if case.row == "step":
        return jax_step(lambda weights, carry, x: merged(weights)(carry, x)[0], weights, given)
    function = lambda weights, xs, lengths: merged(weights)(xs)
    return jax_program(case, given, function, weights, lambda grads: from_nnx(merged(grads))[1])
