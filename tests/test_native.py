"""The C++ kernels under `scan`: against the reference, in float32 and under every transformation.

Five to forty steps of sums of a few dozen products: 2e-5 of the largest value.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxlstm as jl
from jaxlstm import sweep
from jaxlstm.kernels import native

KEY = jax.random.key(0)
CELLS = {"lstm": jl.lstm(21), "peephole": jl.lstm(21, peephole=True), "gru": jl.gru(21)}
installed = pytest.mark.skipif(
    importlib.util.find_spec("jaxlstm_native") is None,
    reason="jaxlstm-native is not installed: pip install ./native",
)


@pytest.fixture(autouse=True)
def one_device_in_float32(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    with jax.enable_x64(False):
        yield


def drawn(tree, seed):
    leaves, tree = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    draw = lambda key, a: 0.5 * jax.random.normal(key, a.shape, jnp.float32)
    return tree.unflatten(map(draw, keys, leaves))


def problem(cell, time, batch, features):
    xs = drawn(jnp.zeros((time, batch, features)), 0)
    params = drawn(cell.init(KEY, xs[0]), 1)
    return params, xs, drawn(cell.initial_carry(params, xs[0]), 2)


def close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, atol=2e-5 * max(1, float(jnp.abs(e).max())))


@installed
@pytest.mark.parametrize("kept", [native.KEPT, 0], ids=["gates kept", "lean"])
@pytest.mark.parametrize("used", ["outputs", "carry", "both"])
@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients(name, ragged, used, kept, monkeypatch):
    monkeypatch.setattr(native, "KEPT", kept)
    cell = CELLS[name]
    jax.clear_caches()  # which know nothing of KEPT
    sweep._traced_types.cache_clear()
    params, xs, carry = problem(cell, 40, 20, 11)
    lengths = jnp.arange(20) * 2 if ragged else None

    def loss(params, xs, carry, implementation):
        options = dict(lengths=lengths, implementation=implementation)
        last, ys = jl.scan(cell, params, xs, carry, **options)
        of_last = sum(jnp.cos(a).sum() for a in jax.tree.leaves(last))
        return (used != "carry") * jnp.sin(ys).sum() + (used != "outputs") * of_last, (last, ys)

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), static_argnums=3)
    close(*(run(params, xs, carry, name) for name in ("native", "reference")))


def second_order(f, params, xs):
    gradients = lambda *p: jax.tree.leaves(jax.grad(f, (0, 1))(*p))
    return jax.grad(lambda *p: sum(jnp.sin(g).sum() for g in gradients(*p)), (0, 1))(params, xs)


TRANSFORMATIONS = {
    "vmap": lambda f, p, xs: jax.vmap(f, (None, 1))(p, xs),
    "vmap of grad": lambda f, p, xs: jax.vmap(jax.grad(f), (None, 1))(p, xs),
    "grad of vmap": lambda f, p, xs: jax.grad(lambda p: jax.vmap(f, (None, 1))(p, xs).sum())(p),
    "mapped weights": lambda f, p, xs: jax.vmap(jax.value_and_grad(f), (0, None))(
        jax.tree.map(lambda a: jnp.stack([a, 2 * a]), p), xs
    ),
    "jvp": lambda f, p, xs: jax.jvp(f, (p, xs), (p, xs)),
    "Hessian-vector product": lambda f, p, xs: jax.jvp(jax.grad(f, (0, 1)), (p, xs), (p, xs)),
    "reverse over reverse": second_order,
    "checkpoint": lambda f, p, xs: jax.grad(jax.checkpoint(f), (0, 1))(p, xs),
}


@installed
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("name", ["peephole", "gru"])
def test_transformations(name, transformation):
    cell = CELLS[name]
    params, xs, _ = problem(cell, 5, 3, 4)
    loss = lambda implementation: (
        lambda params, xs: jnp.sin(
            jl.scan(cell, params, xs, implementation=implementation)[1]
        ).sum()
    )
    transform = TRANSFORMATIONS[transformation]
    close(*(transform(loss(name), params, xs) for name in ("native", "reference")))


@installed
@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("name", ["peephole", "gru"])
def test_shard_map_over_several_devices(name, check_vma, monkeypatch):
    if jax.local_device_count() < 2:
        pytest.skip("needs two devices")
    monkeypatch.setattr(jax, "device_count", jax.local_device_count)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    cell = CELLS[name]
    p = problem(cell, 5, 4, 3)

    def loss(implementation, *p):
        last, ys = jl.scan(cell, *p, implementation=implementation)
        return jnp.sin(ys).sum() + sum(jnp.cos(a).sum() for a in last)

    split = jax.shard_map(
        lambda *p: jax.lax.psum(loss("native", *p), "data"),
        mesh=mesh,
        in_specs=(P(), P(None, "data"), P("data")),
        out_specs=P(),
        check_vma=check_vma,
    )
    of = lambda loss: jax.jit(jax.grad(loss, (0, 1, 2)))(*p)
    close(of(split), of(functools.partial(loss, "reference")))


@installed
def test_it_is_chosen_where_it_can_serve():
    cell = CELLS["gru"]
    params, xs, _ = problem(cell, 5, 3, 4)
    assert next(iter(jl.explain(cell, params, xs).items())) == ("native", None)
    jaxpr = str(jax.make_jaxpr(lambda xs: jl.scan(cell, params, xs))(xs))
    assert "implementation=native" in jaxpr


@pytest.mark.parametrize(
    ("cell", "dtype", "reason"),
    [
        (jl.lstm(3, cell_clip=1.0), jnp.float32, "only lstm and gru are built in"),
        (jl.elman(3), jnp.float32, "only lstm and gru are built in"),
        (jl.lstm(3, projection=2), jnp.float32, "projections are not built in"),
        (jl.lstm(3, layer_norm=True), jnp.float32, "layer normalisation and projections"),
        (jl.gru(3), jnp.bfloat16, "it computes in float32, not bfloat16"),
    ],
    ids=str,
)
def test_what_it_can_t_serve_goes_to_another_and_it_says_why(cell, dtype, reason, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    x = jax.ShapeDtypeStruct((2, 4), dtype)
    params = cell.init(KEY, x)
    answers = jl.explain(cell, params, jax.ShapeDtypeStruct((5, 2, 4), dtype))
    assert reason in answers["native"]
    assert answers["blocked"] is None


def test_without_the_package_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    cell = CELLS["gru"]
    params, xs, _ = problem(cell, 6, 2, 4)
    assert "not installed" in jl.explain(cell, params, xs)["native"]
    with pytest.raises(ValueError, match="'native' can't serve: the package jaxlstm-native"):
        jl.scan(cell, params, xs, implementation="native")


def test_resets_and_several_devices_are_left_to_others(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    cell = CELLS["gru"]
    params, xs, _ = problem(cell, 5, 3, 4)
    with pytest.raises(ValueError, match="resets are not built in"):
        jl.scan(cell, params, xs, resets=jnp.zeros((5, 3), bool), implementation="native")
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="several devices"):
        jl.scan(CELLS["lstm"], CELLS["lstm"].init(KEY, xs[0]), xs, implementation="native")
