"""Recurrent networks in JAX: cells as pairs of pure functions, sequences as scans of them."""

from jaxlstm.base import Cell, Layer, Persistent, cell
from jaxlstm.cells.elman import ElmanCarry, ElmanParams, elman, elman_step, init_elman
from jaxlstm.cells.gru import GRUCarry, GRUParams, gru, gru_step, init_gru
from jaxlstm.cells.janet import JANETCarry, JANETParams, init_janet, janet, janet_step
from jaxlstm.cells.lstm import LSTMCarry, LSTMNorm, LSTMParams, init_lstm, lstm, lstm_step
from jaxlstm.cells.mgu import MGUCarry, MGUParams, init_mgu, mgu, mgu_step
from jaxlstm.combine.bidirectional import BidirectionalCarry, BidirectionalParams, bidirectional
from jaxlstm.combine.noise import (
    DropoutCarry,
    DropoutMasks,
    variational_dropout,
    weight_drop,
)
from jaxlstm.combine.stack import stack
from jaxlstm.sequence import explain, scan

__version__ = "0.1.0"

__all__ = [
    "BidirectionalCarry",
    "BidirectionalParams",
    "Cell",
    "DropoutCarry",
    "DropoutMasks",
    "ElmanCarry",
    "ElmanParams",
    "GRUCarry",
    "GRUParams",
    "JANETCarry",
    "JANETParams",
    "LSTMCarry",
    "LSTMNorm",
    "LSTMParams",
    "Layer",
    "MGUCarry",
    "MGUParams",
    "Persistent",
    "bidirectional",
    "cell",
    "elman",
    "elman_step",
    "explain",
    "gru",
    "gru_step",
    "init_elman",
    "init_gru",
    "init_janet",
    "init_lstm",
    "init_mgu",
    "janet",
    "janet_step",
    "lstm",
    "lstm_step",
    "mgu",
    "mgu_step",
    "scan",
    "stack",
    "variational_dropout",
    "weight_drop",
]
