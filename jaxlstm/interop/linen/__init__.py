"""Flax Linen: weights in and out, and modules that hold any of our cells."""

from jaxlstm.interop.linen.modules import RNN, RecurrentCell, flatten_params, unflatten_params
from jaxlstm.interop.linen.weights import from_linen, to_linen

__all__ = [
    "RNN",
    "RecurrentCell",
    "flatten_params",
    "from_linen",
    "to_linen",
    "unflatten_params",
]
