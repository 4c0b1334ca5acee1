"""ONNX Runtime, which computes in float32: values to 2e-6, a few rounding errors of gates below 1.

The models are those of `jaxlstm.interop.onnx.to_onnx`, whose weights it lays out as ONNX has them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.interop.onnx import to_onnx
from tests.parity.agreement import agree

pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx==1.23.2")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="ONNX Runtime is not installed: pip install onnxruntime==1.31.1"
)

T, B, D, H = 9, 4, 3, 5
LENGTHS = np.array([9, 4, 0, 6], np.int32)


def random(tree, seed):
    """Normal numbers in float32, in a tree of the same shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float32), tree)


XS = random(np.empty((T, B, D)), 4)


@functools.cache
def drawn(cell):
    """Params and a first carry."""
    params = random(cell.init(jax.random.key(0), XS[0]), 0)
    return params, random(cell.initial_carry(params, XS[0]), 5)


def theirs(cell, lengths, reverse):
    """ONNX Runtime's outputs and last states."""
    params, carry = drawn(cell)
    layer = jl.backward(cell) if reverse else cell
    model = to_onnx(layer, params, lengths=lengths is not None, carry=True)
    fed = {f"carry.{name}": a for name, a in carry._asdict().items() if a is not None}
    fed |= {"xs": XS} | ({} if lengths is None else {"lengths": lengths})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {name: np.asarray(a) for name, a in fed.items()})


def compare(cell, options, lengths, reverse, oracle):
    params, carry = drawn(cell)
    last, ys = jl.scan(cell, params, XS, carry, lengths=lengths, reverse=reverse)
    agree(
        *([ys, *jax.tree.leaves(last)], theirs(cell, lengths, reverse), 2e-6),
        cell=cell.name.partition("(")[0],
        options=", ".join([*options, *["lengths"] * (lengths is not None), *["reverse"] * reverse]),
        oracle=f"ONNX Runtime {oracle}",
    )


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize(
    ("cell", "options", "oracle"),
    [
        (jl.lstm(H), [], "LSTM"),
        (jl.lstm(H, peephole=True), ["peephole"], "LSTM"),
        (jl.gru(H), [], "GRU"),
        (jl.gru_reset_before(H), [], "GRU"),
        (jl.elman(H), [], "RNN"),
        (jl.elman(H, activation="relu"), ["relu"], "RNN"),
    ],
    ids=repr,
)
def test_cell(cell, options, oracle, lengths, reverse):
    compare(cell, options, lengths, reverse, oracle)


@pytest.mark.parametrize("peephole", [False, True], ids=["plain", "peephole"])
def test_gate_clip(peephole):
    bound = jl.lstm(H, peephole=peephole, gate_clip=0.7)
    free = theirs(jl.lstm(H, peephole=peephole), LENGTHS, False)
    assert np.abs(theirs(bound, LENGTHS, False)[0] - free[0]).max() > 0.1
    compare(bound, [*["peephole"] * peephole, "gate_clip"], LENGTHS, False, "LSTM")


@pytest.mark.parametrize("name", ["nig", "nfg", "nog", "niaf", "noaf", "np", "cifg"])
def test_ablation(name):
    compare(jl.lstm_ablation(H, name), [name], LENGTHS, False, "LSTM")
