"""Recurrent networks in JAX: cells as pairs of pure functions, sequences as scans of them."""

from jaxlstm.attention import (
    Attended,
    AttentionCarry,
    AttentionParams,
    Memory,
    attend,
    attention,
)
from jaxlstm.base import Cell, Layer, Persistent, cell
from jaxlstm.base import register_for_export as _register
from jaxlstm.cells.ablations import (
    LSTMAblationCarry,
    LSTMAblationParams,
    init_lstm_ablation,
    lstm_ablation,
    lstm_ablation_step,
)
from jaxlstm.cells.convlstm import (
    ConvLSTMCarry,
    ConvLSTMParams,
    convlstm,
    convlstm_step,
    init_convlstm,
)
from jaxlstm.cells.elman import ElmanCarry, ElmanParams, elman, elman_step, init_elman
from jaxlstm.cells.gru import GRUCarry, GRUParams, gru, gru_step, init_gru
from jaxlstm.cells.gru_d import (
    GRUDCarry,
    GRUDInput,
    GRUDParams,
    gru_d,
    gru_d_step,
    init_gru_d,
    observation_intervals,
)
from jaxlstm.cells.gru_reset_before import (
    GRUResetBeforeCarry,
    GRUResetBeforeParams,
    gru_reset_before,
    gru_reset_before_step,
    init_gru_reset_before,
)
from jaxlstm.cells.hyper_lstm import (
    HyperLSTMCarry,
    HyperLSTMNorm,
    HyperLSTMParams,
    HyperLSTMSmallParams,
    hyper_lstm,
    hyper_lstm_step,
    init_hyper_lstm,
)
from jaxlstm.cells.indrnn import IndRNNCarry, IndRNNParams, indrnn, indrnn_step, init_indrnn
from jaxlstm.cells.janet import JANETCarry, JANETParams, init_janet, janet, janet_step
from jaxlstm.cells.lstm import LSTMCarry, LSTMNorm, LSTMParams, init_lstm, lstm, lstm_step
from jaxlstm.cells.lstm_1997 import (
    LSTM1997Carry,
    LSTM1997Params,
    init_lstm_1997,
    lstm_1997,
    lstm_1997_step,
)
from jaxlstm.cells.mgu import MGUCarry, MGUParams, init_mgu, mgu, mgu_step
from jaxlstm.cells.mingru import MinGRUCarry, MinGRUParams, init_mingru, mingru, mingru_step
from jaxlstm.cells.minlstm import MinLSTMCarry, MinLSTMParams, init_minlstm, minlstm, minlstm_step
from jaxlstm.cells.mlstm import MLSTMCarry, MLSTMParams, init_mlstm, mlstm, mlstm_step
from jaxlstm.cells.mogrifier_lstm import (
    MogrifierLSTMCarry,
    MogrifierLSTMParams,
    MogrifierRound,
    init_mogrifier_lstm,
    mogrifier_lstm,
    mogrifier_lstm_step,
)
from jaxlstm.cells.phased_lstm import (
    PhasedLSTMCarry,
    PhasedLSTMInput,
    PhasedLSTMParams,
    init_phased_lstm,
    phased_lstm,
    phased_lstm_step,
)
from jaxlstm.cells.slstm import SLSTMCarry, SLSTMParams, init_slstm, slstm, slstm_step
from jaxlstm.cells.sru import SRUCarry, SRUParams, init_sru, sru, sru_step
from jaxlstm.cells.time_aware_lstm import (
    TimeAwareLSTMCarry,
    TimeAwareLSTMInput,
    TimeAwareLSTMParams,
    init_time_aware_lstm,
    time_aware_lstm,
    time_aware_lstm_step,
)
from jaxlstm.combine.backward import backward
from jaxlstm.combine.bidirectional import BidirectionalCarry, BidirectionalParams, bidirectional
from jaxlstm.combine.data_parallel import data_parallel
from jaxlstm.combine.hidden_parallel import HiddenShardings, hidden_parallel, hidden_shardings
from jaxlstm.combine.noise import (
    DropoutCarry,
    DropoutMasks,
    variational_dropout,
    weight_drop,
)
from jaxlstm.combine.pyramid import pyramid
from jaxlstm.combine.recurrent_dropout import (
    RecurrentDropoutCarry,
    recurrent_dropout,
    recurrent_dropout_step,
)
from jaxlstm.combine.skip import residual, skip
from jaxlstm.combine.stack import stack
from jaxlstm.combine.start import LearnedStartParams, learned_start
from jaxlstm.combine.zoneout import (
    ZoneoutCarry,
    ZoneoutMasks,
    expected_zoneout,
    zoneout,
    zoneout_step,
)
from jaxlstm.linear_recurrence import linear_recurrence
from jaxlstm.losses.activation import (
    activation_regularization,
    temporal_activation_regularization,
)
from jaxlstm.sequence import explain, scan
from jaxlstm.streaming import streaming

__version__ = "0.1.0"

__all__ = [
    "Attended",
    "AttentionCarry",
    "AttentionParams",
    "BidirectionalCarry",
    "BidirectionalParams",
    "Cell",
    "ConvLSTMCarry",
    "ConvLSTMParams",
    "DropoutCarry",
    "DropoutMasks",
    "ElmanCarry",
    "ElmanParams",
    "GRUCarry",
    "GRUDCarry",
    "GRUDInput",
    "GRUDParams",
    "GRUParams",
    "GRUResetBeforeCarry",
    "GRUResetBeforeParams",
    "HiddenShardings",
    "HyperLSTMCarry",
    "HyperLSTMNorm",
    "HyperLSTMParams",
    "HyperLSTMSmallParams",
    "IndRNNCarry",
    "IndRNNParams",
    "JANETCarry",
    "JANETParams",
    "LSTM1997Carry",
    "LSTM1997Params",
    "LSTMAblationCarry",
    "LSTMAblationParams",
    "LSTMCarry",
    "LSTMNorm",
    "LSTMParams",
    "Layer",
    "LearnedStartParams",
    "MGUCarry",
    "MGUParams",
    "MLSTMCarry",
    "MLSTMParams",
    "Memory",
    "MinGRUCarry",
    "MinGRUParams",
    "MinLSTMCarry",
    "MinLSTMParams",
    "MogrifierLSTMCarry",
    "MogrifierLSTMParams",
    "MogrifierRound",
    "Persistent",
    "PhasedLSTMCarry",
    "PhasedLSTMInput",
    "PhasedLSTMParams",
    "RecurrentDropoutCarry",
    "SLSTMCarry",
    "SLSTMParams",
    "SRUCarry",
    "SRUParams",
    "TimeAwareLSTMCarry",
    "TimeAwareLSTMInput",
    "TimeAwareLSTMParams",
    "ZoneoutCarry",
    "ZoneoutMasks",
    "activation_regularization",
    "attend",
    "attention",
    "backward",
    "bidirectional",
    "cell",
    "convlstm",
    "convlstm_step",
    "data_parallel",
    "elman",
    "elman_step",
    "expected_zoneout",
    "explain",
    "gru",
    "gru_d",
    "gru_d_step",
    "gru_reset_before",
    "gru_reset_before_step",
    "gru_step",
    "hidden_parallel",
    "hidden_shardings",
    "hyper_lstm",
    "hyper_lstm_step",
    "indrnn",
    "indrnn_step",
    "init_convlstm",
    "init_elman",
    "init_gru",
    "init_gru_d",
    "init_gru_reset_before",
    "init_hyper_lstm",
    "init_indrnn",
    "init_janet",
    "init_lstm",
    "init_lstm_1997",
    "init_lstm_ablation",
    "init_mgu",
    "init_mingru",
    "init_minlstm",
    "init_mlstm",
    "init_mogrifier_lstm",
    "init_phased_lstm",
    "init_slstm",
    "init_sru",
    "init_time_aware_lstm",
    "janet",
    "janet_step",
    "learned_start",
    "linear_recurrence",
    "lstm",
    "lstm_1997",
    "lstm_1997_step",
    "lstm_ablation",
    "lstm_ablation_step",
    "lstm_step",
    "mgu",
    "mgu_step",
    "mingru",
    "mingru_step",
    "minlstm",
    "minlstm_step",
    "mlstm",
    "mlstm_step",
    "mogrifier_lstm",
    "mogrifier_lstm_step",
    "observation_intervals",
    "phased_lstm",
    "phased_lstm_step",
    "pyramid",
    "recurrent_dropout",
    "recurrent_dropout_step",
    "residual",
    "scan",
    "skip",
    "slstm",
    "slstm_step",
    "sru",
    "sru_step",
    "stack",
    "streaming",
    "temporal_activation_regularization",
    "time_aware_lstm",
    "time_aware_lstm_step",
    "variational_dropout",
    "weight_drop",
    "zoneout",
    "zoneout_step",
]

_register(globals()[name] for name in __all__ if hasattr(globals()[name], "_fields"))
