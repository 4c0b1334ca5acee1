"""Every cell under every law of `jaxlstm.testing`."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import jaxlstm as jl
from jaxlstm import testing
from tests import papers
from tests.papers.attention import reading


def of_shape(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float64)


STEP = of_shape(3, 4)  # (B, D)


class OwnParams(NamedTuple):
    w: jax.Array  # (D + H, 2, H)  gates f, n
    start: jax.Array  # (H,)  the carry before the first step, learned


@jl.cell
def own_mgu(hidden: int):
    """Minimal gated unit (Zhou et al. 2016, arXiv:1603.09420), somebody's own: a step alone."""

    def init(key, x):
        shape = (x.shape[-1] + hidden, 2, hidden)
        return OwnParams(0.5 * jax.random.normal(key, shape, x.dtype), jnp.ones(hidden, x.dtype))

    def initial_carry(params, x, key=None):
        return jnp.broadcast_to(params.start, (*x.shape[:-1], hidden))

    def step(params, h, x):
        dense = lambda h, w: jnp.concatenate([x, h], -1) @ w
        f = jax.nn.sigmoid(dense(h, params.w[:, 0]))
        h = (1 - f) * h + f * jnp.tanh(dense(f * h, params.w[:, 1]))
        return h, h

    return init, initial_carry, step


CELLS = {
    "lstm": lambda: jl.lstm(5),
    "lstm peephole": lambda: jl.lstm(5, peephole=True),
    "lstm every option": lambda: jl.lstm(
        5, peephole=True, projection=2, layer_norm=True, cell_clip=0.5, gate_clip=1.0
    ),
    "lstm projection": lambda: jl.lstm(5, projection=2),
    "nig": lambda: jl.lstm_ablation(5, "nig"),
    "nfg": lambda: jl.lstm_ablation(5, "nfg"),
    "nog": lambda: jl.lstm_ablation(5, "nog"),
    "niaf": lambda: jl.lstm_ablation(5, "niaf"),
    "noaf": lambda: jl.lstm_ablation(5, "noaf"),
    "np": lambda: jl.lstm_ablation(5, "np"),
    "cifg": lambda: jl.lstm_ablation(5, "cifg"),
    "fgr": lambda: jl.lstm_ablation(5, "fgr"),
    "lstm_1997": lambda: jl.lstm_1997(5),
    "gru": lambda: jl.gru(5),
    "gru_reset_before": lambda: jl.gru_reset_before(5),
    "elman tanh": lambda: jl.elman(5),
    "elman relu": lambda: jl.elman(5, activation="relu"),
    "mgu": lambda: jl.mgu(5),
    "indrnn": lambda: jl.indrnn(5),
    "janet": lambda: jl.janet(5),
    "mingru": lambda: jl.mingru(5),
    "minlstm": lambda: jl.minlstm(5),
    "sru": lambda: jl.sru(5),
    "slstm": lambda: jl.slstm(5),
    "slstm heads": lambda: jl.slstm(6, heads=2),
    "slstm exp": lambda: jl.slstm(5, forget="exp"),
    "mlstm": lambda: jl.mlstm(6, heads=2, key_size=2),
    "mlstm exp": lambda: jl.mlstm(5, forget="exp"),
    "hyper_lstm": lambda: jl.hyper_lstm(5, hyper=3, embedding=2),
    "hyper_lstm norm": lambda: jl.hyper_lstm(5, hyper=3, embedding=2, layer_norm=True),
    "mogrifier_lstm": lambda: jl.mogrifier_lstm(5),
    "mogrifier_lstm rank": lambda: jl.mogrifier_lstm(5, rounds=3, rank=2),
    "attention additive": lambda: reading(jl.attention(jl.gru(5), "additive", memory=6, size=3), 6),
    "attention dot": lambda: reading(jl.attention(jl.gru(5), "dot", memory=5, size=3), 5),
    "attention general unfed": lambda: reading(
        jl.attention(jl.lstm(5), "general", memory=6, size=3, feeding=False), 6
    ),
    "attention concat": lambda: reading(jl.attention(jl.lstm(5), "concat", memory=6, size=3), 6),
    "attention location": lambda: reading(
        jl.attention(jl.gru(5), "location", memory=6, size=3, positions=5), 6
    ),
    "gru_d": lambda: jl.gru_d(5),
    "time_aware_lstm": lambda: jl.time_aware_lstm(5),
    "phased_lstm": lambda: jl.phased_lstm(5),
    "convlstm 1D": lambda: jl.convlstm(2, (3,)),
    "convlstm 2D peephole": lambda: jl.convlstm(2, (2, 3), peephole=True),
    "stack": lambda: jl.stack(jl.lstm(5), jl.gru(4)),
    "stack peephole": lambda: jl.stack(jl.elman(3), jl.lstm(5, peephole=True)),
    "dropout": lambda: jl.variational_dropout(jl.lstm(5), 0.3),
    "dropout everywhere": lambda: jl.variational_dropout(
        jl.lstm(5), 0.3, recurrent=0.3, outputs=0.3
    ),
    "dropout gru": lambda: jl.variational_dropout(jl.gru(5), 0.3, recurrent=0.3),
    "zoneout": lambda: jl.zoneout(jl.lstm(5), c=0.4, h=0.3),
    "expected zoneout": lambda: jl.expected_zoneout(jl.lstm(5), c=0.4, h=0.3),
    "recurrent dropout": lambda: jl.recurrent_dropout(jl.gru(5), 0.3),
    "learned start": lambda: jl.learned_start(jl.lstm(5)),
    "residual": lambda: jl.residual(jl.lstm(4)),
    "skip": lambda: jl.skip(jl.gru_reset_before(5)),
    "one device": lambda: jl.data_parallel(jl.gru(5), 1),
    "every device": lambda: jl.hidden_parallel(jl.gru(8)),
    "somebody's own": lambda: own_mgu(5),
}


STEPS = {  # of what the others do not take
    "gru_d": jl.GRUDInput(STEP, STEP, STEP),
    "time_aware_lstm": jl.TimeAwareLSTMInput(STEP, of_shape(3)),
    "phased_lstm": jl.PhasedLSTMInput(STEP, of_shape(3)),
    "convlstm 1D": of_shape(3, 5, 2),
    "convlstm 2D peephole": of_shape(3, 3, 4, 2),
}


LONG = {  # of which a relative with as much to break is not long: `make laws`
    *("lstm peephole", "lstm projection", "nig", "nfg", "nog", "niaf", "noaf", "np", "fgr"),
    *("elman relu", "mgu", "minlstm"),
    *("slstm", "slstm exp", "mlstm exp", "hyper_lstm norm", "mogrifier_lstm"),
    *("attention dot", "attention general unfed", "attention concat", "attention location"),
    *("convlstm 1D", "stack", "dropout", "dropout gru", "expected zoneout", "one device"),
    *("every device", "skip", "recurrent dropout"),
}
CORE = {"lstm", "gru", "somebody's own"}
# What the first two say is a part of what `check_padding` says.
PARTS = (testing.check_scan, testing.check_options, testing.check_padding)
OTHERS = [law for law in testing.LAWS if law not in PARTS]


def laws():
    """All laws of a cell in one process, which compiles what they have in common once.

    Not long are all of `CORE`, and of another cell `check_padding` and each sixth of the others.
    """
    turns = itertools.count()
    for name in CELLS:
        held = {testing.check_padding, *OTHERS[next(turns) % 6 :: 6]} if name not in LONG else ()
        for law in testing.LAWS:
            long = law not in (testing.LAWS if name in CORE else held)
            marks = [pytest.mark.xdist_group(name), *([pytest.mark.long] if long else [])]
            yield pytest.param(name, law, marks=marks, id=f"{name}-{law.__name__}")


@pytest.mark.parametrize(("name", "law"), list(laws()))
def test_law(name, law):
    law(*prepared(name))


@functools.cache
def prepared(name):
    """Arguments of a law. Params are NumPy's: to compile what `init` draws takes longer than most.

    The laws would put noise on them all the same.
    """
    cell, key, x = CELLS[name](), jax.random.key(1), STEPS.get(name, STEP)
    params = papers.drawn(cell, x, key)
    return cell._replace(init=lambda key, x: params), key, x


@pytest.mark.parametrize("name", CELLS)
def test_equal_calls_give_the_same_cell(name):
    assert CELLS[name]() is CELLS[name]()


def cells_by_length(short):
    for name in CELLS:
        yield pytest.param(name, marks=[] if name in short else [pytest.mark.long])


@pytest.mark.parametrize("name", list(cells_by_length({"lstm", "mlstm", "sru", "attention dot"})))
def test_a_batch_of_none_has_outputs_of_none_and_no_gradient(name):
    cell, one = CELLS[name](), STEPS.get(name, STEP)
    key = jax.random.key(0)
    params = cell.init(key, one)
    none = jax.tree.map(lambda a: jnp.zeros((2, 0, *a.shape[1:]), a.dtype), one)
    of = lambda params: jl.scan(cell, params, none, key=key, lengths=jnp.zeros(0, int))[1]
    assert all(a.shape[:2] == (2, 0) for a in jax.tree.leaves(jax.eval_shape(of, params)))
    total = lambda params: sum(a.sum() for a in jax.tree.leaves(of(params)))
    gradient = jax.jit(jax.grad(total))(params)
    assert not any(a.any() for a in jax.tree.leaves(gradient))


def test_every_cell_and_wrapper_of_the_package_is_held_to_the_laws():
    made = {name for name in jl.__all__ if hasattr(getattr(jl, name), "__wrapped__")}
    made -= {"backward", "bidirectional", "pyramid"}  # which make Layers
    held = " ".join(repr(make()) for make in CELLS.values())
    held += " attention("  # by `reading`, which gives it a memory and a name of its own
    assert [name for name in sorted(made) if f"{name}(" not in held] == []
