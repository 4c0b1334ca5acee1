"""PyTorch: `nn.LSTM` and `nn.GRU`, on as many threads as there are cores."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from experiments.benchmarks.sequence import limit
from experiments.benchmarks.sequence.cases import LAYERS, Case, Given
from experiments.benchmarks.sequence.program import Program, named
from jaxlstm.interop.torch import from_torch, to_torch

torch.set_num_threads(limit.cores())


def build(case: Case, given: Given, variant: str) -> Program:
    weights = to_torch(given.layer, given.params)
    xs = torch.tensor(given.xs)
    if case.row == "step":
        return _step(case, given, weights, xs)
    kind = torch.nn.GRU if case.row == "gru" else torch.nn.LSTM
    options = dict(bidirectional=case.row == "bidirectional")
    options |= dict(num_layers=LAYERS) if case.row == "layers" else {}
    module = kind(*case.shape[2:], **options)
    module.load_state_dict({name: torch.tensor(a) for name, a in weights.items()})
    lengths = None if given.lengths is None else torch.tensor(given.lengths, dtype=torch.int64)

    def sequence():
        if lengths is None:
            return module(xs)[0]
        packed = pack_padded_sequence(xs, lengths, enforce_sorted=False)
        return pad_packed_sequence(module(packed)[0], total_length=len(xs))[0]

    @torch.inference_mode()
    def forward():
        return sequence()

    def gradient():
        module.zero_grad()
        xs.grad = None
        loss = sequence().square().sum()
        loss.backward()
        return loss.detach()

    if not case.gradient:
        return Program(forward, lambda ys: {"ys": ys.numpy()})
    xs.requires_grad_()
    ones = jax.tree.map(jnp.ones_like, given.params)
    copied = to_torch(given.layer, ones)  # zero where it has a second bias

    def arrays(loss):
        gradients = {name: p.grad.numpy() * copied[name] for name, p in module.named_parameters()}
        return named(loss.numpy(), from_torch(gradients)[1], xs.grad.numpy())

    return Program(gradient, arrays)


def _step(case, given, weights, xs):
    cell = torch.nn.LSTMCell(*case.shape[2:])
    names = {name: name.removesuffix("_l0") for name in weights}
    cell.load_state_dict({names[name]: torch.tensor(a) for name, a in weights.items()})
    state = [torch.tensor(np.asarray(given.carry.h)), torch.tensor(np.asarray(given.carry.c))]

    @torch.inference_mode()
    def call():
        state[:] = cell(xs[0], tuple(state))
        return state

    return Program(call, lambda state: {"h": state[0].numpy(), "c": state[1].numpy()})
