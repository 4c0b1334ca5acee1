"""PyTorch in float64: outputs, last states and every gradient, from states that are not zero.

Both sum the same products in another order, over at most nine steps of a few units: 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests.parity.agreement import agree

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

T, B, D, H, R = 9, 4, 3, 5, 2
LENGTHS = np.array([9, 4, 1, 6])  # it refuses a length of zero
KINDS = {
    "lstm": (jl.lstm(H), torch.nn.LSTM, {}),
    "lstm projection": (jl.lstm(H, projection=R), torch.nn.LSTM, {"proj_size": R}),
    "gru": (jl.gru(H), torch.nn.GRU, {}),
    "elman": (jl.elman(H), torch.nn.RNN, {"nonlinearity": "tanh"}),
    "elman relu": (jl.elman(H, activation="relu"), torch.nn.RNN, {"nonlinearity": "relu"}),
}
DEEP = ["lstm", "lstm projection", "gru"]


def from_torch(kind, layer=0, suffix=""):
    """A function from the weights to our params of one layer and direction."""

    def convert(weights):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w_x, w_h, b_x, b_h = (weights[f"{name}_l{layer}{suffix}"] for name in names)
        gates = len(b_x) // H
        split = lambda w: w.T.reshape(w.shape[1], gates, H)
        if kind.startswith("lstm"):
            params = jl.LSTMParams(split(w_x), split(w_h), (b_x + b_h).reshape(4, H))
            projection = weights.get(f"weight_hr_l{layer}{suffix}")
            return params._replace(projection=None if projection is None else projection.T)
        if kind == "gru":
            b = b_x.reshape(3, H) + b_h.reshape(3, H).at[2].set(0)
            return jl.GRUParams(split(w_x), split(w_h), b, b_h.reshape(3, H)[2])
        return jl.ElmanParams(w_x.T, w_h.T, b_x + b_h)

    return convert


def carry_of(kind, states):
    if kind.startswith("lstm"):
        return jl.LSTMCarry(c=states[1], h=states[0])
    return (jl.GRUCarry if kind == "gru" else jl.ElmanCarry)(states[0])


def states_of(carry):
    return (carry.h, carry.c) if hasattr(carry, "c") else (carry.h,)


def run_torch(module, xs, states, lengths, seeds):
    """Outputs and last states, and the gradients of their sum weighted by the seeds."""
    xs = torch.tensor(xs, requires_grad=True)
    states = [torch.tensor(s, requires_grad=True) for s in states]
    given = tuple(states) if len(states) == 2 else states[0]
    inputs = xs
    if lengths is not None:
        inputs = torch.nn.utils.rnn.pack_padded_sequence(xs, lengths, enforce_sorted=False)
    ys, last = module(inputs, given)
    if lengths is not None:
        ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, total_length=len(xs))
    out = [ys, *(last if len(states) == 2 else (last,))]
    sum((o * torch.tensor(s)).sum() for o, s in zip(out, seeds, strict=True)).backward()
    weights = {name: p.grad.numpy() for name, p in module.named_parameters()}
    gradients = (weights, xs.grad.numpy(), [s.grad.numpy() for s in states])
    return [o.detach().numpy() for o in out], gradients


def compare(kind, module, ours, layers, lengths, *options):
    """`ours(weights, xs, states)` gives outputs and last states as PyTorch stacks them."""
    rng = np.random.default_rng(3)
    shown = module.proj_size or H
    sizes = [shown, H] if kind.startswith("lstm") else [shown]
    xs = rng.normal(size=(T, B, D))
    states = [rng.normal(size=(layers, B, size)) for size in sizes]
    outputs = (T, B, shown * (2 if module.bidirectional else 1))
    seeds = [rng.normal(size=shape) for shape in (outputs, *(s.shape for s in states))]
    weights = {name: jnp.asarray(p.detach().numpy()) for name, p in module.named_parameters()}

    @jax.jit
    def run(*arguments):
        out, pull = jax.vjp(ours, *arguments)
        return out, pull([jnp.asarray(s) for s in seeds])

    actual = run(weights, jnp.asarray(xs), list(map(jnp.asarray, states)))
    expected = run_torch(module, xs, states, lengths, seeds)
    cell, *of_cell = kind.split()
    options = [*of_cell, *options, *["lengths"] * (lengths is not None)]
    labels = dict(cell=cell, options=", ".join(options), oracle="PyTorch")
    for a, e, what in zip(actual, expected, ("values", "gradients"), strict=True):
        agree(a, e, 1e-12, **labels, what=what)


def make(kind, layers=1, bidirectional=False):
    cell, module, options = KINDS[kind]
    torch.manual_seed(7)
    options = {**options, "num_layers": layers, "bidirectional": bidirectional}
    return cell, module(D, H, dtype=torch.float64, **options)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_layer(kind, lengths):
    cell, module = make(kind)
    convert = from_torch(kind)

    def ours(weights, xs, states):
        carry = carry_of(kind, [s[0] for s in states])
        carry, ys = jl.scan(cell, convert(weights), xs, carry, lengths=lengths)
        return [ys, *(s[None] for s in states_of(carry))]

    compare(kind, module, ours, 1, lengths)


@pytest.mark.parametrize("kind", DEEP)
def test_two_layers(kind):
    cell, module = make(kind, layers=2)
    convert = [from_torch(kind, layer) for layer in range(2)]

    def ours(weights, xs, states):
        params = tuple(c(weights) for c in convert)
        carry = tuple(carry_of(kind, [s[n] for s in states]) for n in range(2))
        carry, ys = jl.scan(jl.stack(cell, cell), params, xs, carry, lengths=LENGTHS)
        return [ys, *(jnp.stack(s) for s in zip(*map(states_of, carry), strict=True))]

    compare(kind, module, ours, 2, LENGTHS, "two layers")


@pytest.mark.parametrize("kind", DEEP)
def test_both_directions(kind):
    cell, module = make(kind, bidirectional=True)
    ahead, back = from_torch(kind), from_torch(kind, suffix="_reverse")

    def ours(weights, xs, states):
        first, second = (carry_of(kind, [s[n] for s in states]) for n in range(2))
        first, ys = jl.scan(cell, ahead(weights), xs, first, lengths=LENGTHS)
        second, zs = jl.scan(cell, back(weights), xs, second, lengths=LENGTHS, reverse=True)
        last = zip(states_of(first), states_of(second), strict=True)
        return [jnp.concatenate([ys, zs], -1), *map(jnp.stack, last)]

    compare(kind, module, ours, 2, LENGTHS, "both directions")
