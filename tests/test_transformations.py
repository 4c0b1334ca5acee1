"""Every transformation of every gated cell against the plain scan of the paper's equations."""

import collections
import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxlstm as jl
from jaxlstm.kernels import blocked, products, residual
from tests import matrices, papers

TOLERANCE = 1e-10  # float64; second derivatives are sums of some hundred terms

CELLS = {
    "lstm": (jl.lstm(2), papers.lstm),
    "lstm peephole": (jl.lstm(2, peephole=True), papers.lstm),
    "gru": (jl.gru(2), papers.gru),
    "elman tanh": (jl.elman(2), papers.elman_tanh),
    "elman relu": (jl.elman(2, activation="relu"), papers.elman_relu),
}


class Primals(NamedTuple):
    params: jl.LSTMParams | jl.GRUParams | jl.ElmanParams
    xs: jax.Array
    carry: jl.LSTMCarry | jl.GRUCarry | jl.ElmanCarry


@functools.cache
def primals(cell, time=3, batch=2, features=3):
    key, xs = jax.random.key(0), papers.normal(time, batch, features)
    params = papers.drawn(cell, xs[0], key)
    carry = papers.away_from_zero(key, cell.initial_carry(params, xs[0]))
    return Primals(params, jnp.asarray(xs), carry)


def loss(run, params, xs, carry):
    carry, ys = run(params, xs, carry)
    return jnp.sin(ys).sum() + sum(jnp.cos(a).sum() for a in carry)


def tangents(p):
    return jax.tree.map(jnp.cos, tuple(p))


def stacked(params):
    return jax.tree.map(lambda a: jnp.stack([a, 0.5 * a]), params)


def by_example(run):
    """The loss of each lone sequence of a batch."""
    return jax.vmap(functools.partial(loss, run), in_axes=(None, 1, 0))


def grad(run, p):
    return jax.grad(functools.partial(loss, run), (0, 1, 2))(*p)


def jvp(run, p):
    return jax.jvp(run, tuple(p), tangents(p))


def linearize(run, p):
    values, tangent = jax.linearize(run, *p)
    return values, tangent(*tangents(p))


def checkpoint(run, p):
    return grad(jax.checkpoint(run), p)


def hessian(run, p):
    return jax.hessian(lambda b: loss(run, p.params._replace(b=b), p.xs, p.carry))(p.params.b)


def reverse_over_reverse(run, p):
    def along(*p):
        gradients = jax.grad(functools.partial(loss, run), (0, 1, 2))(*p)
        return sum(jnp.vdot(g, jnp.cos(g)) for g in jax.tree.leaves(gradients))

    return jax.grad(along, (0, 1, 2))(*p)


def vmap_of_grad(run, p):
    gradient = jax.grad(functools.partial(loss, run), (0, 1, 2))
    return jax.vmap(gradient, in_axes=(None, 1, 0))(*p)


def grad_of_vmap(run, p):
    return jax.grad(lambda *p: by_example(run)(*p).sum(), (0, 1, 2))(*p)


def mapped_weights(run, p):
    value_and_grad = jax.value_and_grad(functools.partial(loss, run), (0, 1, 2))
    return jax.vmap(value_and_grad, in_axes=(0, None, None))(stacked(p.params), p.xs, p.carry)


ORACLES = {  # what each is of the plain scan, in as few programs as will do
    grad: grad,
    checkpoint: grad,
    grad_of_vmap: grad,
    jvp: jvp,
    linearize: jvp,
    hessian: hessian,
    reverse_over_reverse: reverse_over_reverse,
    vmap_of_grad: vmap_of_grad,
    mapped_weights: mapped_weights,
}


@functools.cache
def expected(name, transformation, batch=2):
    cell, equations = CELLS[name]
    plain = functools.partial(transformation, papers.scan(equations))
    return jax.jit(plain)(primals(cell, batch=batch))


FEW = {  # which are one kernel; the laws of `jaxlstm.testing` hold each cell to the commonest
    "lstm peephole": ORACLES,
    "gru": (mapped_weights, reverse_over_reverse),
    "elman tanh": (linearize, reverse_over_reverse, vmap_of_grad),
}


def cells_and_transformations():
    for name in CELLS:
        for transformation in ORACLES:
            marks = [] if transformation in FEW.get(name, ()) else [pytest.mark.long]
            yield pytest.param(name, transformation, marks=marks)


@pytest.mark.parametrize(("name", "transformation"), list(cells_and_transformations()))
def test_equals_the_plain_scan(name, transformation):
    cell, _ = CELLS[name]
    run = functools.partial(transformation, functools.partial(jl.scan, cell))
    papers.close(jax.jit(run)(primals(cell)), expected(name, ORACLES[transformation]), TOLERANCE)


@pytest.mark.parametrize("transformation", [hessian, reverse_over_reverse, mapped_weights])
def test_equals_the_plain_scan_where_nothing_is_kept(transformation, monkeypatch):
    monkeypatch.setattr(residual, "FEW", 0)
    cell = jl.lstm(2, gate_clip=1e3)  # of no other test, so that nothing has been compiled of it
    run = functools.partial(transformation, functools.partial(jl.scan, cell))
    actual = jax.jit(run)(primals(cell))
    papers.close(actual, expected("lstm", ORACLES[transformation]), TOLERANCE)


@pytest.mark.parametrize("transformation", [hessian, reverse_over_reverse, mapped_weights])
def test_equals_the_plain_scan_with_one_product_of_x_and_h(transformation, monkeypatch):
    monkeypatch.setattr(products, "tasks", lambda rows, columns, terms: 1 + (terms > 2))
    cell = jl.lstm(2, gate_clip=1e4)  # of no other test, so that nothing has been compiled of it
    of = primals(cell, features=2)
    actual, expected = (
        jax.jit(functools.partial(way, functools.partial(jl.scan, cell, implementation=name)))(of)
        for way, name in [(transformation, "blocked"), (ORACLES[transformation], "reference")]
    )
    papers.close(actual, expected, TOLERANCE)


def shapes_in(function, p):
    text = jax.jit(function).lower(*p).compile().as_text()
    return {shape for shape in ("3,7,20", "3,7,4,5", "3,5,20", "3,5,4,5") if f"[{shape}]" in text}


def test_mapped_gradient_holds_no_weight_gradient_per_example():
    cell = jl.lstm(5)
    p = primals(cell, time=11, batch=3, features=7)
    run = functools.partial(jl.scan, cell)
    summed = jax.grad(lambda *p: by_example(run)(*p).sum())
    assert not shapes_in(summed, p)
    per_example = jax.vmap(jax.grad(functools.partial(loss, run)), in_axes=(None, 1, 0))
    assert shapes_in(per_example, p)


def operations(function, *p):
    """How many of each operation there are in a compiled program."""
    text = jax.jit(function).lower(*p).compile().as_text()
    return collections.Counter(re.findall(r" = \S+ ([a-z-]+)\(", text))


@pytest.mark.parametrize("name", ["lstm peephole", "gru"])
def test_single_sequences_under_vmap_are_the_program_of_a_batch(name):
    cell, _ = CELLS[name]
    p = primals(cell, time=11, batch=3)
    gradients = lambda run: lambda *p: jax.grad(lambda *p: run(*p).sum(), (0, 1, 2))(*p)
    whole = lambda params, xs, carry: jl.scan(cell, params, xs, carry)[1]
    each = jax.vmap(whole, (None, 1, 0), 1)
    expected = operations(gradients(whole), *p)
    assert expected["dot"] + expected["fusion"] > 5
    assert operations(gradients(each), *p) == expected


@pytest.fixture
def mesh():
    return two_devices(AxisType.Auto)


def two_devices(axis_type):
    if jax.device_count() < 2:
        pytest.skip("needs two devices, and jax_num_cpu_devices came too late for them")
    return jax.make_mesh((2,), ("data",), axis_types=(axis_type,))


DATA = P(), P(None, "data"), P("data")  # of params, xs and carry


def of_shards(run, mesh, check_vma):
    """The loss of a batch that is split over devices."""
    total = lambda *p: jax.lax.psum(loss(run, *p), "data")
    return jax.shard_map(total, mesh=mesh, in_specs=DATA, out_specs=P(), check_vma=check_vma)


@pytest.mark.parametrize(
    ("transformation", "check_vma"), matrices.crossed([grad, hessian], [True, False])
)
def test_shard_map_of_several_blocks(transformation, check_vma, mesh, monkeypatch):
    monkeypatch.setattr(blocked, "ROWS", (2, 2))
    cell = jl.lstm(2, peephole=True, cell_clip=1e3)  # of no other test, as above
    whole = {"mesh": mesh, "in_specs": DATA, "out_specs": (P("data"), P(None, "data"))}
    run = jax.shard_map(functools.partial(jl.scan, cell), **whole, check_vma=check_vma)
    actual = jax.jit(functools.partial(transformation, run))(primals(cell, batch=4))
    papers.close(actual, expected("lstm peephole", transformation, batch=4), TOLERANCE)


@pytest.mark.parametrize(
    ("implementation", "check_vma"), matrices.crossed(["reference", None], [True, False])
)
def test_shard_map_over_the_batch_gives_the_same_gradients(implementation, check_vma, mesh):
    cell, _ = CELLS["gru"]
    run = functools.partial(jl.scan, cell, implementation=implementation)
    gradient = jax.jit(jax.grad(of_shards(run, mesh, check_vma), (0, 1, 2)))
    actual = gradient(*primals(cell, batch=4))
    papers.close(actual, expected("gru", grad, batch=4), TOLERANCE)


def test_shard_map_of_a_scan_without_a_carry(mesh):
    cell, _ = CELLS["gru"]
    run = lambda params, xs, carry: jl.scan(cell, params, xs)
    p = primals(cell, batch=4)
    papers.close(jax.jit(of_shards(run, mesh, True))(*p), loss(run, *p), TOLERANCE)


@pytest.mark.parametrize("which", [0, 1], ids=["carry", "outputs"])
def test_shard_map_where_one_result_alone_is_used(which, mesh):
    cell, _ = CELLS["gru"]
    alone = lambda *p: sum(jnp.sin(a).sum() for a in jax.tree.leaves(jl.scan(cell, *p)[which]))
    shards = lambda *p: jax.lax.psum(alone(*p), "data")
    shards = jax.shard_map(shards, mesh=mesh, in_specs=DATA, out_specs=P())
    p = primals(cell, batch=4)
    actual = jax.jit(jax.grad(shards, (0, 1, 2)))(*p)
    papers.close(actual, jax.grad(alone, (0, 1, 2))(*p), TOLERANCE)


@pytest.mark.parametrize(
    ("axis_type", "implementation"),
    matrices.crossed([AxisType.Auto, AxisType.Explicit], ["reference", None]),
    ids=str,
)
def test_sharded_batch_gives_the_same_gradients(axis_type, implementation):
    mesh = two_devices(axis_type)
    cell, _ = CELLS["gru"]
    run = functools.partial(jl.scan, cell, implementation=implementation)
    p = primals(cell, batch=4)
    with jax.set_mesh(mesh):
        placed = map(jax.device_put, p, (NamedSharding(mesh, spec) for spec in DATA))
        actual = jax.jit(functools.partial(grad, run))(Primals(*placed))
    assert len(actual[1].sharding.device_set) == 2
    actual = jax.tree.map(np.asarray, actual)
    papers.close(actual, expected("gru", grad, batch=4), TOLERANCE)


def test_without_jit_the_values_are_the_same():
    cell, equations = CELLS["elman tanh"]
    p = primals(cell)
    with jax.disable_jit():
        actual = jl.scan(cell, *p)
    papers.close(actual, papers.scan(equations)(*p), TOLERANCE)
