"""Ragged batches whose blocks leave sequences out: the same numbers, and less work."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.kernels import blocked, ragged
from tests import matrices, papers

KEY = jax.random.key(0)
TIME, BATCH = 21, 9  # as in no other test: nothing has been compiled of them
CELLS = {
    "peephole": jl.lstm(4, peephole=True),
    "projection": jl.lstm(4, projection=3),
    "gru": jl.gru(4),
}
LENGTHS = {
    "long and short": [21, 1, 0, 13, 5, 2, 8, 3, 1],
    "all whole": [21] * 9,
    "all empty": [0] * 9,
    "one": [0] * 8 + [21],
}


@pytest.fixture(autouse=True)
def blocks_of_two_steps_on_one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(blocked, "ROWS", (2 * BATCH, 2 * BATCH))


def problem(cell, batch=(BATCH,)):
    xs = papers.normal(TIME, *batch, 3)
    params = papers.drawn(cell, xs[0], KEY)
    return params, xs, papers.away_from_zero(KEY, cell.initial_carry(params, xs[0]))


def loss(cell, implementation, reverse, params, xs, carry, options):
    options = options | dict(reverse=reverse, implementation=implementation)
    last, ys = jl.scan(cell, params, xs, carry, **options)
    return jnp.sin(ys).sum() + sum(jnp.cos(a).sum() for a in last), (last, ys)


def gradients(f):
    return jax.value_and_grad(f, (0, 1, 2), has_aux=True)


@functools.cache
def compiled(cell, implementation, reverse, transform):
    return jax.jit(transform(functools.partial(loss, cell, implementation, reverse)))


def same(cell, options, transform=gradients, reverse=False):
    of = lambda name: compiled(cell, name, reverse, transform)(*problem(cell), options)
    papers.close(of("blocked"), of("reference"), 1e-12)


def cells_and_lengths():
    for name in CELLS:
        for lengths in LENGTHS:
            few = name == "peephole" or (name == "projection" and lengths == "long and short")
            yield pytest.param(name, lengths, marks=[] if few else [pytest.mark.long])


@pytest.mark.parametrize(("name", "lengths"), list(cells_and_lengths()))
def test_values_and_gradients(name, lengths):
    same(CELLS[name], {"lengths": np.array(LENGTHS[lengths])})


@pytest.mark.parametrize("reverse", matrices.few([False, True], long=[False]))
def test_masks_with_holes_resets_and_reversal(reverse):
    mask, resets = np.random.default_rng(0).uniform(size=(2, TIME, BATCH)) < 0.4
    options = dict(mask=mask, resets=resets, lengths=np.array(LENGTHS["long and short"]))
    same(CELLS["gru"], options, reverse=reverse)


def test_a_reset_after_a_sequence_s_last_valid_step():
    mask = np.arange(TIME)[:, None] < np.array(LENGTHS["long and short"])
    resets = np.zeros((TIME, BATCH), bool)
    resets[[4, 17], :7] = True
    same(CELLS["gru"], {"mask": mask, "resets": resets})


def mapped_weights(f):
    twice = lambda params: jax.tree.map(lambda a: jnp.stack([a, 0.5 * a]), params)
    mapped = jax.vmap(jax.value_and_grad(f, (0, 1), has_aux=True), (0, None, None, None))
    return lambda params, *rest: mapped(twice(params), *rest)


def second_order(f):
    gradients = jax.grad(f, (0, 1, 2), has_aux=True)
    return jax.grad(lambda *p: sum(jnp.sin(g).sum() for g in jax.tree.leaves(gradients(*p)[0])))


def forward_mode(f):
    return lambda *p: jax.jvp(lambda *q: f(*q, p[-1])[0], p[:-1], p[:-1])


@pytest.mark.parametrize("transform", [mapped_weights, second_order, forward_mode])
def test_transformations(transform):
    same(jl.elman(4), {"lengths": np.array(LENGTHS["long and short"])}, transform)


def test_single_sequences_under_vmap():
    cell, lengths = CELLS["peephole"], jnp.array(LENGTHS["long and short"])
    params, xs, _ = problem(cell)

    def mapped(params, xs):
        one = lambda xs, length: jl.scan(cell, params, xs, lengths=length)[1]
        return jnp.sin(jax.vmap(one, (1, 0), 1)(xs, lengths)).sum()

    def plain(params, xs):
        return jnp.sin(
            jl.scan(cell, params, xs, lengths=lengths, implementation="reference")[1]
        ).sum()

    of = lambda f: jax.jit(jax.value_and_grad(f, (0, 1)))(params, xs)
    papers.close(of(mapped), of(plain), 1e-12)


def test_blocks_take_no_more_sequences_than_they_need():
    """Nine: programs of two, four and all."""
    seen = []

    def block(state, start, s, of_rows):
        (count,) = of_rows((jnp.arange(BATCH),))
        jax.debug.callback(lambda start, rows: seen.append((int(start), len(rows))), start, count)
        return state, s

    valid = jnp.arange(8)[:, None] < jnp.array([0, 1, 2, 2, 8, 3, 2, 6, 4])
    run = lambda reverse: jax.block_until_ready(
        ragged.in_ragged_blocks(block, (), None, (valid,), valid, 2, reverse)
    )
    run(False)
    jax.effects_barrier()
    assert seen == [(0, BATCH), (2, 4), (4, 2), (6, 2)]
    run(True)
    jax.effects_barrier()
    assert seen[4:] == seen[3::-1]


@pytest.mark.parametrize(
    ("batch", "time", "devices"), [(7, 8, 1), (9, 7, 1), (9, 8, 2)], ids=["few", "short", "split"]
)
def test_small_batches_and_split_ones_are_taken_whole(batch, time, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    block = lambda state, start, s, of_rows: (state, s)
    run = lambda valid: ragged.in_ragged_blocks(block, (), None, (valid,), valid, 2)
    jaxpr = str(jax.make_jaxpr(run)(jnp.ones((time, batch), bool)))
    assert "cond" not in jaxpr
