"""Memory cell blocks: the networks of Hochreiter and Schmidhuber 1997, weight by weight.

A block is a few cells that share an input gate and an output gate. Gates and cells, the hidden
units, see the inputs and all hidden units of the step before, gates too; the outputs see the cells.

    i = σ(net_i), o = σ(net_o), g = 4 σ(net_c) - 2,  net = W x + U y' + b
    s = f s' + i g
    y = o (2 σ(s) - 1)

where f = 1, or, with the forget gates of Gers, Schmidhuber and Cummins 2000, f = σ(net_f). With the
peepholes of Gers, Schraudolph and Schmidhuber 2002 a block's gates see its states too, the input
and the forget gate s', the output gate s.

The truncated gradient of the paper's appendix A.1: an error that arrives at a hidden unit's net
input changes the weights into it, and goes no further back; through the state s alone it flows on,
undiminished. In other words, y' is a constant, and so are the states that a gate sees.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import jaxlstm as jl
from jaxlstm.gates import sigmoid


class Net(NamedTuple):
    """What a network is made of; its number of weights is the one that the paper prints."""

    inputs: int
    outputs: int
    blocks: int
    cells: int  # of a block
    biases: str = "all"  # of the hidden units: "all", "gates" or "none"
    output_bias: bool = True
    output_gates: bool = True
    forget_gates: bool = False
    peepholes: bool = False
    squashed: bool = True  # y = o (2 σ(s) - 1), otherwise y = o s
    recurrent: bool = True
    gates_feed: bool = True  # whether hidden units see the gates, or the cells alone
    direct: bool = False  # whether the outputs see the inputs
    logistic: bool = True  # the outputs; otherwise linear
    input_gate_biases: tuple[float, ...] = ()  # at the start, one for each block
    output_gate_biases: tuple[float, ...] = ()
    forget_gate_biases: tuple[float, ...] = ()
    span: float = 0.1  # weights begin in [-span, span]

    @property
    def gates(self) -> int:
        return self.blocks * (1 + self.output_gates + self.forget_gates)

    @property
    def units(self) -> int:
        return self.gates + self.blocks * self.cells

    @property
    def sources(self) -> int:
        """How many hidden units others see."""
        return self.units if self.gates_feed else self.blocks * self.cells


class Params(NamedTuple):
    w_x: jax.Array  # (D, U)  into the hidden units: input, output and forget gates, cells
    w_h: jax.Array | None  # (S, U)  from cells and gates, in this order
    b: jax.Array | None  # (U,), or (gates,)
    w_y: jax.Array  # (cells, O)
    w_d: jax.Array | None  # (D, O)
    b_y: jax.Array | None  # (O,)
    w_p: jax.Array | None = None  # (gates, cells of a block)  peepholes


class Carry(NamedTuple):
    s: jax.Array  # (blocks, cells)  states
    y: jax.Array  # (S,)  what others see: cells, and gates


def init(key: jax.Array, net: Net) -> Params:
    """All weights from U(-span, span), and the gates' biases as they are given."""
    cells = net.blocks * net.cells
    biases = {"all": net.units, "gates": net.gates, "none": 0}[net.biases]
    shapes = Params(
        (net.inputs, net.units),
        (net.sources, net.units) if net.recurrent else None,
        (biases,) if biases else None,
        (cells, net.outputs),
        (net.inputs, net.outputs) if net.direct else None,
        (net.outputs,) if net.output_bias else None,
        (net.gates, net.cells) if net.peepholes else None,
    )
    keys = jax.random.split(key, len(shapes))
    drawn = Params(
        *(
            shape and jax.random.uniform(k, shape, minval=-net.span, maxval=net.span)
            for k, shape in zip(keys, shapes, strict=True)
        )
    )
    b, kinds = drawn.b, (net.input_gate_biases, net.output_gate_biases, net.forget_gate_biases)
    for kind, given in enumerate(kinds):
        if given:
            b = b.at[kind * net.blocks : (kind + 1) * net.blocks].set(jnp.array(given))
    return drawn._replace(b=b)


def activations(
    net: Net, params: Params, x: jax.Array, y: jax.Array, s: jax.Array
) -> tuple[jax.Array, ...]:
    """Of W x + b (U,), what is seen (S,) and the states before (blocks, cells).

    Returns:
      σ of the net inputs of input gates, forget gates (blocks, 1) and cells (blocks, cells); and
      the output gates' net inputs but for their peepholes, (blocks, 1).
    """
    a = x if params.w_h is None else x + y @ params.w_h
    i, o, f = (a[n * net.blocks : (n + 1) * net.blocks, None] for n in range(3))
    i = sigmoid(i + _peep(net, params, 0, s))
    f = sigmoid(f + _peep(net, params, 2, s)) if net.forget_gates else jnp.ones_like(i)
    return i, f, sigmoid(a[net.gates :].reshape(net.blocks, net.cells)), o


def cell_outputs(net: Net, params: Params, o: jax.Array, s: jax.Array, seen: jax.Array):
    """The output gates (blocks, 1) and the cells' outputs (blocks, cells).

    Args:
      net: the network.
      params: its weights.
      o: (blocks, 1) the output gates' net inputs but for their peepholes.
      s: (blocks, cells) the states.
      seen: (blocks, cells) the states that the gates see, the same but for what flows back.
    """
    o = sigmoid(o + _peep(net, params, 1, seen)) if net.output_gates else jnp.ones_like(o)
    return o, o * (2 * sigmoid(s) - 1 if net.squashed else s)


def _peep(net: Net, params: Params, kind: int, s: jax.Array) -> jax.Array | float:
    if params.w_p is None:
        return 0.0
    w = params.w_p[kind * net.blocks : (kind + 1) * net.blocks]
    return (w * s).sum(-1, keepdims=True)


def seen(net: Net, y: jax.Array, i: jax.Array, o: jax.Array, f: jax.Array) -> jax.Array:
    """What others see of cells (blocks, cells) and gates (blocks, 1): (S,)."""
    if not net.gates_feed:
        return y.reshape(-1)
    gates = jnp.concatenate([i, o, f])[: net.gates, 0] if net.output_gates else i[:, 0]
    return jnp.concatenate([y.reshape(-1), gates])


@jl.cell
def memory_blocks(net: Net, truncated: bool = True):
    """The hidden layer as a Cell: of net inputs W x + b (U,), the cells' outputs (cells,).

    With `truncated` its gradient is the paper's, otherwise the whole one.
    """

    def initial_carry(params, x, key=None):
        shape = net.blocks, net.cells
        return Carry(jnp.zeros(shape, x.dtype), jnp.zeros(net.sources, x.dtype))

    def step(params, carry, x):
        cut = jax.lax.stop_gradient if truncated else lambda a: a
        i, f, c, o = activations(net, params, x, cut(carry.y), cut(carry.s))
        s = f * carry.s + i * (4 * c - 2)
        o, y = cell_outputs(net, params, o, s, cut(s))
        return Carry(s, seen(net, y, i, o, f)), y.reshape(-1)

    return lambda key, x: init(key, net), initial_carry, step


def outputs(
    net: Net, params: Params, xs: jax.Array, times: jax.Array, truncated: bool = True
) -> jax.Array:
    """The outputs at some times.

    Args:
      net: the network.
      params: its weights.
      xs: (T, D) floating point, or (T,) integers: which input is 1, all others being 0.
      times: (K,) the steps that are asked for.
      truncated: whether the gradient is the paper's.

    Returns:
      (K, O).
    """
    _, ys = jl.scan(memory_blocks(net, truncated), params, net_inputs(params, xs))
    return readout(net, params, ys[times], xs[times])


def net_inputs(params: Params, xs: jax.Array) -> jax.Array:
    """W x + b of inputs (*B, D), or of integers (*B,)."""
    z = _into(params.w_x, xs)
    return z if params.b is None else z.at[..., : len(params.b)].add(params.b)


def readout(net: Net, params: Params, y: jax.Array, xs: jax.Array) -> jax.Array:
    """The outputs (*B, O) of the cells' (*B, cells) and the inputs."""
    a = y @ params.w_y
    if params.w_d is not None:
        a = a + _into(params.w_d, xs)
    a = a if params.b_y is None else a + params.b_y
    return sigmoid(a) if net.logistic else a


def _into(w: jax.Array, xs: jax.Array) -> jax.Array:
    return w[xs] if jnp.issubdtype(xs.dtype, jnp.integer) else xs @ w
