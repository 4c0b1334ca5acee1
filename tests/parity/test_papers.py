"""Every cell against a loop of its paper's equations in NumPy, one unit of time and batch at once.

Both sum the same products in another order, in float64, over at most seven steps: 1e-12.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests.papers import attention as reads
from tests.papers import away_from_zero, convlstm, drawn, irregular, xlstm
from tests.papers import gated as papers
from tests.papers.hyper_lstm import hyper_lstm
from tests.papers.mogrifier_lstm import mogrifier_lstm
from tests.parity.agreement import agree

T, B, D, H = 7, 3, 4, 5


def of_shape(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float64)


STEP = of_shape(B, D)
PHASED = jl.PhasedLSTMInput(STEP, of_shape(B))
# name: (cell, its step by the paper, one step of input if it is not (B, D))
CASES = {
    "lstm": (jl.lstm(H), papers.lstm),
    "lstm peephole": (jl.lstm(H, peephole=True), papers.lstm),
    "lstm projection": (jl.lstm(H, projection=2), papers.lstm),
    "lstm layer_norm": (jl.lstm(H, layer_norm=True), papers.lstm),
    "lstm cell_clip": (jl.lstm(H, cell_clip=0.2), partial(papers.lstm, cell_clip=0.2)),
    "lstm gate_clip": (jl.lstm(H, gate_clip=0.5), partial(papers.lstm, gate_clip=0.5)),
    "lstm all options": (
        jl.lstm(H, peephole=True, projection=2, layer_norm=True, cell_clip=0.2, gate_clip=0.5),
        partial(papers.lstm, cell_clip=0.2, gate_clip=0.5),
    ),
    **{
        f"lstm_ablation {name}": (jl.lstm_ablation(H, name), papers.ablation(name))
        for name in ("nig", "nfg", "nog", "niaf", "noaf", "np", "cifg", "fgr")
    },
    "lstm_1997": (jl.lstm_1997(H), papers.lstm_1997),
    "gru": (jl.gru(H), papers.gru),
    "gru_reset_before": (jl.gru_reset_before(H), papers.gru_reset_before),
    "elman": (jl.elman(H), papers.elman),
    "mgu": (jl.mgu(H), papers.mgu),
    "indrnn": (jl.indrnn(H), papers.indrnn),
    "janet": (jl.janet(H), papers.janet),
    "mingru": (jl.mingru(H), papers.mingru),
    "minlstm": (jl.minlstm(H), papers.minlstm),
    "sru": (jl.sru(H), papers.sru),
    "sru D = H": (jl.sru(D), papers.sru),
    "slstm heads": (jl.slstm(6, heads=2), xlstm.slstm),
    "slstm exp": (jl.slstm(5, forget="exp"), partial(xlstm.slstm, forget="exp")),
    "mlstm heads, key_size": (jl.mlstm(6, heads=2, key_size=4), xlstm.mlstm),
    "mlstm exp": (jl.mlstm(5, forget="exp"), partial(xlstm.mlstm, forget="exp")),
    "hyper_lstm": (jl.hyper_lstm(H, hyper=3, embedding=2), hyper_lstm),
    "hyper_lstm layer_norm": (jl.hyper_lstm(H, hyper=3, embedding=2, layer_norm=True), hyper_lstm),
    "mogrifier_lstm": (jl.mogrifier_lstm(H), mogrifier_lstm),
    "mogrifier_lstm rank": (jl.mogrifier_lstm(H, rounds=4, rank=2), mogrifier_lstm),
    "attention additive": (
        reads.reading(jl.attention(jl.mgu(H), "additive", memory=6, size=3), 6),
        reads.bahdanau(papers.mgu),
    ),
    "attention dot": (
        reads.reading(jl.attention(jl.mgu(H), "dot", memory=H, size=3), H),
        reads.luong("dot", papers.mgu),
    ),
    "attention general": (
        reads.reading(jl.attention(jl.janet(H), "general", memory=6, size=3), 6),
        reads.luong("general", papers.janet),
    ),
    "attention concat": (
        reads.reading(jl.attention(jl.janet(H), "concat", memory=6, size=3), 6),
        reads.luong("concat", papers.janet),
    ),
    "attention location": (
        reads.reading(jl.attention(jl.janet(H), "location", memory=6, size=3, positions=7), 6),
        reads.luong("location", papers.janet),
    ),
    "attention general, no feeding": (
        reads.reading(jl.attention(jl.janet(H), "general", memory=6, size=3, feeding=False), 6),
        reads.luong("general", papers.janet, False),
    ),
    "gru_d": (jl.gru_d(H), irregular.gru_d, jl.GRUDInput(STEP, STEP, STEP)),
    "time_aware_lstm": (
        jl.time_aware_lstm(H),
        irregular.time_aware_lstm,
        jl.TimeAwareLSTMInput(STEP, of_shape(B)),
    ),
    "phased_lstm": (jl.phased_lstm(H), irregular.phased_lstm, PHASED),
    "phased_lstm leak": (
        jl.phased_lstm(H, leak=0.3),
        partial(irregular.phased_lstm, leak=0.3),
        PHASED,
    ),
    "convlstm 1D": (jl.convlstm(2, (3,)), convlstm.convlstm, of_shape(B, 6, D)),
    "convlstm 2D peephole": (
        jl.convlstm(2, (2, 3), peephole=True),
        convlstm.convlstm,
        of_shape(B, 3, 5, D),
    ),
    "convlstm 3D peephole": (
        jl.convlstm(2, (1, 2, 3), peephole=True),
        convlstm.convlstm,
        of_shape(B, 2, 3, 4, D),
    ),
}


def by_the_paper(step, params, xs, carry, lengths):
    """Last carries and outputs, sequence by sequence; `step` sees no batch axis."""
    of = lambda tree, *at: jax.tree.map(lambda a: np.asarray(a)[at], tree)
    params, lasts, outputs = of(params, ...), [], []
    for n, length in enumerate(lengths):
        last, ys = of(carry, n), []
        for t in range(length):
            last, y = step(params, last, of(xs, t, n))
            ys.append(y)
        lasts.append(last)
        outputs.append(ys)
    blank = jax.tree.map(np.zeros_like, next(ys[0] for ys in outputs if ys))
    outputs = [ys + [blank] * (max(lengths) - len(ys)) for ys in outputs]
    stacked = lambda trees: jax.tree.map(lambda *a: np.stack(a), *trees)
    return stacked(lasts), stacked([stacked(steps) for steps in zip(*outputs, strict=True)])


@pytest.mark.parametrize("name", CASES)
def test_paper(name):
    cell, step, *given = CASES[name]
    (x,) = given or [STEP]
    key, rng, lengths = jax.random.key(3), np.random.default_rng(3), [T, 0, 4]
    xs = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=(T, *a.shape))), x)
    params = drawn(cell, x, key)
    carry = away_from_zero(key, cell.initial_carry(params, jax.tree.map(lambda a: a[0], xs)))
    actual = jl.scan(cell, params, xs, carry, lengths=lengths)
    expected = by_the_paper(step, params, xs, carry, lengths)
    cell_name, _, options = name.partition(" ")
    options = f"{options}, lengths" if options else "lengths"
    agree(actual, expected, 1e-12, cell=cell_name, options=options, oracle="NumPy loop")
