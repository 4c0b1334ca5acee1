"""Programs by `jax.export`: a symbolic batch and time, and another process that runs them."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxlstm as jl
from tests import matrices, papers
from tests.test_contract import CELLS

pytest.importorskip("flatbuffers", reason="flatbuffers, which jax.export needs, is not installed")
CASES = ["lstm every option", "gru_reset_before", "mingru", "mlstm", "dropout"]
SIZES = (300, 2), (1, 1)  # (T, B): 300 * 2 rows are more than one block
LAYERS = [CELLS[name]() for name in CASES]
LAYERS += [jl.bidirectional(jl.lstm(4), jl.gru(3)), jl.backward(jl.learned_start(jl.elman(4)))]
LONG = [*LAYERS[1:-2], LAYERS[-1]]  # of which the others have much


def program(layer):
    """Values and the gradients of all that is not an integer."""

    def run(params, xs, lengths, key):
        def loss(params, xs):
            apply = layer.apply if isinstance(layer, jl.Layer) else jl.scan
            head = (params, xs) if isinstance(layer, jl.Layer) else (layer, params, xs)
            carry, ys = apply(*head, key=key, lengths=lengths)
            return jnp.sin(ys).sum(), (carry, ys)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, xs)

    return jax.jit(run)


def arguments(layer, time, batch):
    xs = papers.normal(time, batch, 4)
    params = papers.drawn(layer, xs[0], jax.random.key(1))
    return params, xs, np.arange(time, time - batch, -1).clip(0), jax.random.PRNGKey(2)


def exported(layer, **options):
    time, batch = export.symbolic_shape("time, batch")
    params, xs, lengths, key = arguments(layer, 2, 2)
    xs = jax.ShapeDtypeStruct((time, batch, 4), xs.dtype)
    lengths = jax.ShapeDtypeStruct((batch,), lengths.dtype)
    return export.export(program(layer), **options)(params, xs, lengths, key).serialize()


@pytest.mark.parametrize("layer", matrices.few(LAYERS, LONG), ids=repr)
def test_one_program_serves_every_batch_and_time(layer):
    again = export.deserialize(bytearray(exported(layer)))
    for time, batch in SIZES:
        given = arguments(layer, time, batch)
        actual, expected = again.call(*given), program(layer)(*given)
        close = lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-10, atol=1e-10)
        assert jax.tree.structure(actual) == jax.tree.structure(expected)
        jax.tree.map(close, actual, expected)


FRESH = """
import sys
import jax, numpy as np
from jax import export
import jaxlstm as jl

jax.config.update("jax_enable_x64", True)
run = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
given = np.load(sys.argv[2])
params = jl.GRUParams(*(given[name] for name in jl.GRUParams._fields))
(_, (carry, ys)), _ = run.call(params, given["xs"], given["lengths"], given["key"])
assert type(carry) is jl.GRUCarry
np.savez(sys.argv[3], h=carry.h, ys=ys)
"""


def test_a_fresh_process_runs_it(tmp_path):
    cell = jl.gru(5)
    params, xs, lengths, key = arguments(cell, 9, 3)
    (tmp_path / "program").write_bytes(exported(cell, platforms=["cpu", "cuda", "tpu"]))
    np.savez(tmp_path / "in.npz", **params._asdict(), xs=xs, lengths=lengths, key=key)
    files = [str(tmp_path / name) for name in ("program", "in.npz", "out.npz")]
    root = Path(jl.__file__).parents[1]
    subprocess.run([sys.executable, "-c", FRESH, *files], check=True, cwd=root)
    last, ys = jl.scan(cell, params, xs, lengths=lengths)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["ys"], ys, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(out["h"], last.h, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        (jl.lstm(3), {"checkpoint": "sqrt"}, "checkpoint: expected None, or a known number of"),
        (
            jl.mingru(3),
            {"implementation": "associative"},
            "implementation 'associative' can't serve",
        ),
        (
            jl.mlstm(4),
            {"implementation": "parallel"},
            "'parallel' can't serve: xs has a symbolic",
        ),
    ],
)
def test_what_needs_a_known_number_of_steps_says_so(cell, options, message):
    time, batch = export.symbolic_shape("time, batch")
    params = papers.drawn(cell, jnp.ones(4), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((time, batch, 4), jnp.float64)
    with pytest.raises(ValueError, match=message):
        export.export(jax.jit(lambda xs: jl.scan(cell, params, xs, **options)))(xs)


def test_a_pyramid_needs_a_known_number_of_steps():
    (time,) = export.symbolic_shape("time")
    layer = jl.pyramid(jl.gru(3))
    params = papers.drawn(layer, jnp.ones(4), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((time, 4), jnp.float64)
    with pytest.raises(ValueError, match="xs: expected a known number of steps"):
        export.export(jax.jit(lambda xs: layer.apply(params, xs)))(xs)


@pytest.mark.parametrize(
    ("cell", "name"), [(jl.mingru(3), "associative"), (jl.mlstm(4), "chunkwise")]
)
def test_explain_says_what_a_symbolic_number_of_steps_rules_out(cell, name):
    (time,) = export.symbolic_shape("time")
    params = papers.drawn(cell, jnp.ones(4), jax.random.key(0))
    answers = jl.explain(cell, params, jax.ShapeDtypeStruct((time, 4), jnp.float64))
    assert answers[name] == "xs has a symbolic number of steps, time"
    assert answers["reference"] is None
