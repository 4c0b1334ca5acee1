"""Flax Linen: weights in and out, and modules that hold any of our cells."""

from jaxlstm.interop.linen.modules import RecurrentCell, from_variables, to_variables
from jaxlstm.interop.linen.rnn import RNN
from jaxlstm.interop.linen.weights import from_linen, to_linen

__all__ = [
    "RNN",
    "RecurrentCell",
    "from_linen",
    "from_variables",
    "to_linen",
    "to_variables",
]
