"""Models of NNX with our cells: trained, copied, stored."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import jaxlstm as jl
from jaxlstm.interop.nnx import RNN, RecurrentCell

T, D, H = 7, 4, 5
CELLS = {
    "lstm": jl.lstm(H),
    "stack": jl.stack(jl.lstm(H), jl.gru(3)),
    "learned_start": jl.learned_start(jl.gru(H)),
}


@pytest.mark.parametrize("kind", CELLS)
def test_params_go_in_and_out_bit_for_bit(kind, tmp_path):
    module = RecurrentCell(CELLS[kind], D, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(9)
    params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), module.params)
    again = RecurrentCell(CELLS[kind], D, params=params)
    assert jax.tree.structure(again.params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again.params, params)
    module.set_params(jax.tree.map(lambda a: a.astype(jnp.float32), params))
    assert {a.dtype for a in jax.tree.leaves(nnx.state(module))} == {jnp.dtype("float32")}
    definition, state = nnx.split(again)
    assert definition == nnx.graphdef(RecurrentCell(CELLS[kind], D, rngs=nnx.Rngs(1)))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", nnx.to_pure_dict(state))
        checkpointer.wait_until_finished()
        stored = checkpointer.restore(tmp_path / "state", nnx.to_pure_dict(state))
    empty = jax.tree.map(jnp.zeros_like, state)
    nnx.replace_by_pure_dict(empty, stored)
    jax.tree.map(np.testing.assert_array_equal, nnx.merge(definition, empty).params, params)
    assert copy.deepcopy(again).cell is again.cell
    assert repr(again.cell) in repr(again)


class Tagger(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(9, D, rngs=rngs)
        self.rnn = RNN(RecurrentCell(jl.lstm(16), D, rngs=rngs), rngs=rngs)
        self.head = nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, tokens, lengths):
        return self.head(self.rnn(self.embed(tokens), seq_lengths=lengths))


def test_a_model_of_nnx_learns():
    rng = np.random.default_rng(5)
    tokens = jnp.asarray(rng.integers(0, 9, (8, T)))
    lengths = jnp.asarray(rng.integers(0, T + 1, 8))
    tags = jnp.cumsum(tokens, 1) % 2  # parity so far: the past matters
    model = Tagger(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.05), wrt=nnx.Param)
    mask = jnp.arange(T) < lengths[:, None]

    @nnx.jit
    def step(model, optimizer):
        def loss_of(model):
            loss = optax.softmax_cross_entropy_with_integer_labels(model(tokens, lengths), tags)
            return jnp.where(mask, loss, 0).sum() / mask.sum()

        loss, gradient = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradient)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
