"""Learning step by step, forwards in time: the traces of Hochreiter and Schmidhuber 1997, A.1.

The truncated gradient needs no way back through time. What a state owes to a weight is carried
along with the state,

    ∂s/∂w = f ∂s'/∂w + (what w adds at this step),

so that the weights may change after every step. With forget gates it is the algorithm of Gers,
Schmidhuber and Cummins 2000, Neural Computation 12(10).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.long_lags import blocks
from experiments.long_lags.blocks import Carry, Net, Params


class Memory(NamedTuple):
    carry: Carry
    traces: jax.Array  # (3, blocks, cells, D + S + 1)  of input gates, forget gates, cells


def begin(net: Net) -> Memory:
    """The memory before the first step."""
    carry = Carry(jnp.zeros((net.blocks, net.cells)), jnp.zeros(net.sources))
    return Memory(carry, jnp.zeros((3, *carry.s.shape, net.inputs + net.sources + 1)))


def step(
    net: Net, params: Params, memory: Memory, x: jax.Array, target: jax.Array
) -> tuple[Memory, jax.Array, Params]:
    """One step, and what the truncated gradient is at it.

    Args:
      net: the network.
      params: its weights.
      memory: states and traces before.
      x: (D,) the inputs.
      target: (O,) what the outputs should be.

    Returns:
      The memory after, the outputs (O,), and the gradient of half their squared error.
    """
    carry, traces = memory
    sources = jnp.concatenate([x, carry.y, jnp.ones(1)])
    z = blocks.net_inputs(params, x)
    i, _, f, c, gates = blocks.activations(net, params, z, carry.y)
    g = 4 * c - 2
    s = f * carry.s + i * g
    added = jnp.stack([i * (1 - i) * g, f * (1 - f) * carry.s, i * 4 * c * (1 - c)])
    traces = f[..., None] * traces + added[..., None] * sources

    def error(params, s, z):
        """Of the outputs, by all but what the states owe to weights."""
        _, o, _, _, _ = blocks.activations(net, params, z, carry.y)
        y = blocks.cell_outputs(o, s)
        outputs = blocks.readout(net, params, y, x)
        return 0.5 * jnp.square(outputs - target).sum(), (y, outputs)

    of = jax.grad(error, (0, 1, 2), has_aux=True)
    (gradient, of_s, of_z), (y, outputs) = of(params, s, z)
    by_i, by_f, by_c = of_s[..., None] * traces
    n = net.blocks
    of_unit = of_z[:, None] * sources  # of the output gates; (U, D + S + 1)
    of_unit = of_unit.at[:n].add(by_i.sum(1))
    if net.forget_gates:
        of_unit = of_unit.at[net.gates - n : net.gates].add(by_f.sum(1))
    of_unit = of_unit.at[net.gates :].add(by_c.reshape(-1, len(sources)))
    w_x, w_h, b = jnp.split(of_unit.T, [net.inputs, net.inputs + net.sources])
    gradient = gradient._replace(
        w_x=w_x,
        w_h=w_h if net.recurrent else None,
        b=None if params.b is None else b[0, : len(params.b)],
    )
    return Memory(Carry(s, blocks.seen(net, y, gates)), traces), outputs, gradient
