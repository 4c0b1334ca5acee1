"""Equinox: its cells in `lax.scan`, one sequence under `vmap`, as its documentation has them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from experiments.benchmarks.sequence.cases import Case, Given
from experiments.benchmarks.sequence.program import Program, jax_program, jax_step, transposed
from jaxlstm.interop.equinox import to_equinox


def build(case: Case, given: Given, variant: str) -> Program:
    write = lambda params: to_equinox(given.layer, params)
    module = write(given.params)
    if case.row == "step":

        def step(module, carry, x):
            c, h = carry
            h, c = jax.vmap(module)(x, (h, c))
            return c, h

        return jax_step(step, module, given)
    gated = isinstance(module, eqx.nn.GRUCell)

    def one(module, xs):
        zeros = jnp.zeros(module.hidden_size, xs.dtype)

        def body(carry, x):
            carry = module(x, carry)
            return carry, carry if gated else carry[0]

        return lax.scan(body, zeros if gated else (zeros, zeros), xs)[1]

    function = lambda module, xs, lengths: jax.vmap(one, (None, 1), 1)(module, xs)
    return jax_program(case, given, function, module, transposed(write, given.params))
