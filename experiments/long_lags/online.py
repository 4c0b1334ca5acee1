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
    traces: jax.Array  # (3, blocks, cells, D + S + 1 [+ cells])  of input and forget gates, cells


def begin(net: Net) -> Memory:
    """The memory before the first step."""
    carry = Carry(jnp.zeros((net.blocks, net.cells)), jnp.zeros(net.sources))
    sources = net.inputs + net.sources + 1 + net.peepholes * net.cells
    return Memory(carry, jnp.zeros((3, *carry.s.shape, sources)))


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
    common = len(sources)  # to all units; a block's peepholes come after them
    sources = jnp.broadcast_to(sources, (net.blocks, 1, common))
    if net.peepholes:
        sources = jnp.concatenate([sources, carry.s[:, None]], -1)
    z = blocks.net_inputs(params, x)
    i, f, c, o = blocks.activations(net, params, z, carry.y, carry.s)
    g = 4 * c - 2
    s = f * carry.s + i * g
    added = jnp.stack([i * (1 - i) * g, f * (1 - f) * carry.s, i * 4 * c * (1 - c)])
    traces = f[..., None] * traces + added[..., None] * sources

    def error(params, s, o):
        """Of the outputs, by all but what the states owe to weights."""
        o, y = blocks.cell_outputs(net, params, o, s, jax.lax.stop_gradient(s))
        outputs = blocks.readout(net, params, y.reshape(-1), x)
        return 0.5 * jnp.square(outputs - target).sum(), (o, y, outputs)

    of = jax.grad(error, (0, 1, 2), has_aux=True)
    (gradient, of_s, of_o), (o, y, outputs) = of(params, s, o)
    by_i, by_f, by_c = of_s[..., None] * traces
    by_o = of_o * sources[:, 0].at[:, common:].set(0)  # but for its peepholes, which `error` has
    by_gate = [by_i.sum(1), *([by_o] if net.output_gates else [])]
    by_gate = jnp.concatenate(by_gate + ([by_f.sum(1)] if net.forget_gates else []))
    by_unit = jnp.concatenate([by_gate, by_c.reshape(-1, by_c.shape[-1])])[:, :common].T
    w_x, w_h, b = jnp.split(by_unit, [net.inputs, common - 1])
    gradient = gradient._replace(
        w_x=w_x,
        w_h=w_h if net.recurrent else None,
        b=None if params.b is None else b[0, : len(params.b)],
        w_p=None if params.w_p is None else gradient.w_p + by_gate[:, common:],
    )
    return Memory(Carry(s, blocks.seen(net, y, i, o, f)), traces), outputs, gradient
