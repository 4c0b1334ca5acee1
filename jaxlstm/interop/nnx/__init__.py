"""Flax NNX: weights in and out, and modules that hold any of our cells."""

from jaxlstm.interop.nnx.modules import RecurrentCell
from jaxlstm.interop.nnx.rnn import RNN
from jaxlstm.interop.nnx.weights import from_nnx, to_nnx

__all__ = ["RNN", "RecurrentCell", "from_nnx", "to_nnx"]
