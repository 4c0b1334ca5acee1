"""A cell is rebuilt of its name, and nothing else is ever called."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.interop.calls import Call, call_of, parts_of, rebuild
from tests.test_contract import CELLS

OTHERS = [  # beside those of the contract that this package makes
    jl.attention(jl.gru(5), "location", memory=6, size=3, positions=5),
    jl.attention(jl.lstm(5), "general", memory=6, size=3, feeding=False),
    jl.pyramid(jl.bidirectional(jl.gru(3), jl.gru(3)), factor=3),
    jl.backward(jl.residual(jl.gru(4))),
]
MADE = [make() for name, make in CELLS.items() if not name.startswith(("attention", "somebody"))]


@pytest.mark.parametrize("cell", [*MADE, *OTHERS], ids=repr)
def test_every_cell_is_rebuilt_of_its_name(cell):
    assert rebuild(cell.name) is cell


def test_the_call_has_all_arguments():
    nested = jl.stack(jl.bidirectional(jl.lstm(4, peephole=True), jl.gru(3)), jl.gru(2))
    call = call_of(nested)
    assert call == Call(
        "stack", {"layers": (jl.bidirectional(jl.lstm(4, peephole=True), jl.gru(3)), jl.gru(2))}
    )
    assert call_of(jl.elman(3)) == Call("elman", {"hidden": 3, "activation": "tanh"})


def test_factories_of_one_s_own():
    @jl.cell
    def doubled(hidden: int):
        return jl.stack(jl.gru(hidden), jl.gru(hidden))

    assert rebuild("stack(doubled(3))", [doubled]) is jl.stack(doubled(3))
    with pytest.raises(ValueError, match=r"layer: name: .* doubled\(3\) is no call of attention"):
        call_of(doubled(3))


def test_a_cell_that_another_factory_of_that_name_made_raises():
    @jl.cell
    def gru(hidden: int):
        return jl.elman(hidden)

    with pytest.raises(ValueError, match=r"layer: expected what gru\(3\) makes, got another one"):
        call_of(gru(3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lstm(64", "'\\(' was never closed"),
        ("scan(3)", "is no call of"),
        ("__import__('os')", "is no call of"),
        ("lstm(open('x'))", "is no call of"),
        ("jl.lstm(3)", "is no call of"),
        ("lstm(hidden)", "malformed node"),
        ("lstm(0)", "hidden: expected a positive integer"),
        ("lstm(3, gates=2)", "unexpected keyword"),
        ("cell(3)", "is no call of"),
        ("gru(3, **{})", "is no call of"),
        ("-" * 100_000 + "1", ""),
    ],
)
def test_other_names_raise(name, message):
    with pytest.raises(ValueError, match=f"name: expected the call of a cell, got .*{message}"):
        rebuild(name)


def test_a_factory_of_the_name_of_one_of_ours_raises():
    @jl.cell
    def gru(hidden: int):
        return jl.elman(hidden)

    with pytest.raises(ValueError, match="factories: expected names of their own, got another gru"):
        rebuild("gru(3)", [gru])


def test_a_copied_cell_is_the_same():
    cell = jl.stack(jl.gru(3), jl.lstm(np.int64(4), gate_clip=np.float32(0.5)))
    assert copy.deepcopy(cell) is cell
    assert call_of(type(cell)(*cell)) == call_of(cell)
    assert cell is jl.stack(jl.gru(3), jl.lstm(4, gate_clip=0.5))


def test_a_bound_of_infinity():
    cell = jl.lstm(3, gate_clip=float("inf"))
    assert rebuild(cell.name) is cell


def test_what_is_no_cell_raises():
    with pytest.raises(ValueError, match="layer: expected a Cell or a Layer, got int 3"):
        call_of(3)


@pytest.mark.parametrize("bare", [jl.gru(3), jl.convlstm(3, (3,))], ids=repr)
def test_a_layer_that_runs_backward_has_the_parts_of_its_cell(bare):
    x = jnp.zeros((6, 3)) if bare.name.startswith("conv") else jnp.zeros(3)
    params = bare.init(jax.random.key(0), x)
    (part,) = parts_of(jl.backward(bare), params)
    assert part.cells[0][0].factory == "backward"
    assert len(parts_of(jl.stack(jl.backward(bare), bare), (params, params))) == 2
    with pytest.raises(ValueError, match=r"params: expected those of"):
        parts_of(jl.backward(bare), jl.init_elman(jax.random.key(0), 3, 3))
