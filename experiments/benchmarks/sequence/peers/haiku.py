"""Haiku: `hk.dynamic_unroll` of `hk.LSTM`."""

import haiku as hk

from experiments.benchmarks.sequence.cases import Case, Given
from experiments.benchmarks.sequence.program import Program, jax_program, jax_step, transposed
from jaxlstm.interop.haiku import to_haiku


def build(case: Case, given: Given, variant: str) -> Program:
    batch, _, _, hidden = case.shape
    write = lambda params: to_haiku(given.layer, params)
    weights = write(given.params)

    def sequence(xs):
        core = hk.LSTM(hidden)
        return hk.dynamic_unroll(core, xs, core.initial_state(batch))[0]

    if case.row == "step":
        one = hk.without_apply_rng(hk.transform(lambda x, state: hk.LSTM(hidden)(x, state)[1]))

        def step(weights, carry, x):
            state = one.apply(weights, x, hk.LSTMState(hidden=carry[1], cell=carry[0]))
            return state.cell, state.hidden

        return jax_step(step, weights, given)
    apply = hk.without_apply_rng(hk.transform(sequence)).apply
    function = lambda weights, xs, lengths: apply(weights, xs)
    return jax_program(case, given, function, weights, transposed(write, given.params))
