import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import matrices, papers

KEY = jax.random.key(0)
CONVOLUTIONAL = jl.convlstm(4, (3,))
CELLS = [
    jl.lstm(4, peephole=True),
    jl.gru_reset_before(4),
    jl.stack(jl.lstm(4), jl.gru(3)),
    jl.variational_dropout(jl.lstm(4), 0.5),
    CONVOLUTIONAL,
]


@pytest.fixture(autouse=True)
def two_devices():
    if jax.device_count() < 2:
        pytest.skip("needs two devices, and jax_num_cpu_devices came too late for them")


def problem(cell, batch=(4,), time=6):
    space = (5,) if cell is CONVOLUTIONAL else ()
    xs = papers.normal(time, *batch, *space, 3)
    return papers.drawn(cell, xs[0], KEY), jnp.asarray(xs)


LENGTHS = np.array([6, 0, 3, 1])
OPTIONS = {
    "all": dict(
        lengths=LENGTHS,
        mask=np.arange(24).reshape(6, 4) % 5 > 0,
        resets=np.arange(24).reshape(6, 4) % 7 == 3,
        reverse=True,
    ),
    "ragged": dict(lengths=LENGTHS),
    "whole": {},
}


@pytest.mark.parametrize(("cell", "options"), matrices.crossed(CELLS, list(OPTIONS)), ids=str)
def test_it_is_the_bare_cell(cell, options):
    params, xs = problem(cell)

    def derived(cell):
        def loss(params, xs):
            carry, ys = jl.scan(cell, params, xs, key=KEY, **OPTIONS[options])
            floating = [a for a in jax.tree.leaves(carry) if jnp.issubdtype(a.dtype, jnp.floating)]
            return jnp.sin(ys).sum() + sum(jnp.cos(a).sum() for a in floating), (floating, ys)

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, xs)

    papers.close(derived(jl.data_parallel(cell)), derived(cell), 1e-12)


def test_each_device_has_its_part():
    params, xs = problem(CELLS[0])
    ys = jax.jit(lambda *p: jl.scan(jl.data_parallel(CELLS[0]), *p)[1])(params, xs)
    assert {s.data.shape for s in ys.addressable_shards} == {(6, 2, 4)}
    assert len(ys.addressable_shards) == 2
    alone = jl.scan(jl.data_parallel(CELLS[0], 1), params, xs)[1]
    assert len(alone.addressable_shards) == 1


def test_under_vmap_and_in_a_stack():
    cell = CELLS[0]
    params, xs = problem(cell, (3, 4))
    run = lambda cell: jax.vmap(lambda xs: jl.scan(cell, params, xs)[1], 1, 1)(xs)
    papers.close(run(jl.data_parallel(cell)), run(cell), 1e-12)
    deep = jl.stack(jl.data_parallel(cell), jl.gru(3))
    bare = jl.stack(cell, jl.gru(3))
    params, xs = problem(bare)
    papers.close(jl.scan(deep, params, xs), jl.scan(bare, params, xs), 1e-12)


def test_within_a_mesh_of_the_caller_it_is_the_bare_cell():
    params, xs = problem(CELLS[0])
    mesh = jax.make_mesh((2,), ("mine",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        ys = jax.jit(lambda *p: jl.scan(jl.data_parallel(CELLS[0]), *p)[1])(params, xs)
    papers.close(ys, jl.scan(CELLS[0], params, xs)[1], 1e-12)


@pytest.mark.parametrize("batch", [(), (3,), (1, 2)])
def test_a_batch_that_can_not_be_split_raises(batch):
    params, xs = problem(CELLS[0], batch)
    with pytest.raises(ValueError, match=r"xs: expected \(T, B, ...\) with B a multiple of the 2"):
        jl.scan(jl.data_parallel(CELLS[0]), params, xs)


def test_more_devices_than_there_are_raise():
    params, xs = problem(CELLS[0])
    with pytest.raises(ValueError, match=r"devices: expected at most \d+, .* got 999"):
        jl.scan(jl.data_parallel(CELLS[0], 999), params, xs)


def test_what_serves_a_part_is_explained():
    params, xs = problem(CELLS[0])
    shape = jax.ShapeDtypeStruct(xs.shape, xs.dtype)
    expected = jl.explain(CELLS[0], params, shape)
    assert jl.explain(jl.data_parallel(CELLS[0]), params, xs) == expected


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="bare: expected a Cell"):
        jl.data_parallel(jl.bidirectional(CELLS[0], CELLS[0]))
    with pytest.raises(ValueError, match="devices: expected a positive integer"):
        jl.data_parallel(CELLS[0], 0)
    assert str(jl.data_parallel(jl.lstm(4))) == "data_parallel(lstm(4))"
