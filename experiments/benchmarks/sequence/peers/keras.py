"""Keras on JAX: `stateless_call` of its layers under `jit`, the batch before time."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.sequence.cases import Case, Given
from experiments.benchmarks.sequence.program import Program, jax_program, valid
from jaxlstm.interop.keras import from_weights, to_keras


def build(case: Case, given: Given, variant: str) -> Program:
    layer = to_keras(given.layer, given.params)
    weights = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]
    ones = jax.tree.map(jnp.ones_like, given.params)
    copied = to_keras(given.layer, ones).get_weights()  # zero where it has a bias of its own

    def function(weights, xs, lengths):
        mask = None if lengths is None else valid(lengths, xs.shape[1])[..., 0].T
        options = {} if mask is None else {"mask": mask}
        return layer.stateless_call(weights, others, xs, **options)[0]

    def back(gradients):
        kept = [g * copy for g, copy in zip(gradients, copied, strict=True)]
        return from_weights(layer, kept)[1]

    return jax_program(case, given, function, weights, back, batch_first=True)
