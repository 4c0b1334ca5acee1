"""Units split over two devices; over four, eight and two by four in a process of its own."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxlstm as jl
from tests import matrices, papers

KEY = jax.random.key(0)
TIME, BATCH, HIDDEN, FEATURES = 16, 8, 8, 3
LSTM = jl.lstm(HIDDEN, peephole=True)
LONG = [jl.gru(HIDDEN), jl.elman(HIDDEN, activation="relu")]  # whose update is simpler
CELLS = [LSTM, *(pytest.param(cell, marks=pytest.mark.long) for cell in LONG)]
OTHERS = [
    jl.lstm(HIDDEN, cell_clip=0.5, gate_clip=1.0),
    jl.lstm_1997(HIDDEN),
    jl.lstm_ablation(HIDDEN, "cifg"),
    jl.janet(HIDDEN),
    jl.slstm(HIDDEN),
]


@pytest.fixture(autouse=True)
def two_devices():
    if jax.device_count() < 2:
        pytest.skip("needs two devices, and jax_num_cpu_devices came too late for them")


def problem(bare, time=TIME, batch=(BATCH,)):
    """Params, xs and a carry, none of them zero."""
    xs = papers.normal(time, *batch, FEATURES)
    params = papers.drawn(bare, xs[0], KEY)
    carry = papers.away_from_zero(KEY, bare.initial_carry(params, xs[0]))
    return params, jnp.asarray(xs), jax.tree.map(jnp.abs, carry)


def placed(cell, params, xs, carry):
    where = jl.hidden_shardings(cell, params, xs[0])
    return jax.tree.map(jax.device_put, (params, xs, carry), (where.params, where.xs, where.carry))


def options(time=TIME, batch=BATCH):
    flags = jnp.arange(time * batch).reshape(time, batch)
    lengths = jnp.array([time, 0, 3, 1, time, 7, 2, time])[jnp.arange(batch) % 8]
    ragged = {"lengths": lengths}
    return {
        "whole": {},
        "ragged": ragged,
        "all": ragged | {"mask": flags % 5 > 0, "resets": flags % 7 == 3, "reverse": True},
    }


def derived(cell, options):
    """The last carry and the outputs, and the gradients of a loss of both."""

    def loss(params, xs, carry):
        last, ys = jl.scan(cell, params, xs, carry, **options)
        return jnp.sin(ys).sum() + sum(jnp.cos(a).sum() for a in last), (last, ys)

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))


def with_nan(xs, lengths=None, **_):
    padding = jnp.arange(len(xs))[:, None] >= (len(xs) if lengths is None else lengths)
    return jnp.where(padding[..., None], jnp.nan, xs)


KINDS = "all-gather|all-reduce|all-to-all|ragged-all-to-all|reduce-scatter|collective-[a-z]+"
COLLECTIVE = re.compile(rf" = (?:\(.*?\)|\S+) ({KINDS})(?:-start)?\(")


def sent(program):
    """How often each collective is run in the loops of a compiled program, and how often outside.

    By the numbers of iterations that XLA has written to its loops.
    """
    computations, lines = {}, []
    for line in program.as_text().splitlines():
        if line.endswith("{") and not line.startswith(" "):
            entry, lines = line.startswith("ENTRY"), []
            computations["ENTRY" if entry else line.split()[0].lstrip("%")] = lines
        lines.append(line)

    def count(name):
        loops, outside = Counter(), Counter()
        for line in computations[name]:
            outside.update(COLLECTIVE.findall(line))
            body = re.search(r" while\(.*body=%?([\w.-]+)", line)
            if body:
                times = int(re.search(r'known_trip_count":\{"n":"(\d+)"', line)[1])
                for part in count(body[1]):
                    loops.update({kind: times * n for kind, n in part.items()})
            for called in re.findall(r" (?:call|fusion)\(.*(?:to_apply|calls)=%?([\w.-]+)", line):
                for total, part in zip((loops, outside), count(called), strict=True):
                    total.update(part)
            assert " conditional(" not in line, "its branches are not counted"
        return loops, outside

    return tuple(map(dict, count("ENTRY")))


@pytest.mark.parametrize("name", matrices.few(options(), long=["ragged"]))
@pytest.mark.parametrize("bare", CELLS, ids=str)
def test_it_is_the_bare_cell(bare, name):
    params, xs, carry = problem(bare)
    with_options = options()[name]
    cell = jl.hidden_parallel(bare, 2)
    split = placed(cell, params, with_nan(xs, **with_options), carry)
    actual = derived(cell, with_options)(*split)
    papers.close(actual, derived(bare, with_options)(params, xs, carry), 1e-10)
    (_, (last, ys)), gradients = actual
    per_device = lambda tree: {a.addressable_shards[0].data.shape for a in jax.tree.leaves(tree)}
    assert per_device((last, ys)) == {(BATCH, HIDDEN // 2), (TIME, BATCH, HIDDEN // 2)}
    assert per_device(gradients[0]) == per_device(split[0])


@pytest.mark.parametrize("bare", CELLS, ids=str)
def test_forward_mode(bare):
    primals = problem(bare)
    tangents = papers.away_from_zero(jax.random.key(1), primals)
    run = lambda cell: jax.jit(lambda p, t: jax.jvp(lambda *a: jl.scan(cell, *a), p, t))
    cell = jl.hidden_parallel(bare, 2)
    split = placed(cell, *primals), placed(cell, *tangents)
    papers.close(run(cell)(*split), run(bare)(primals, tangents), 1e-10)


@pytest.mark.parametrize("bare", OTHERS, ids=str)
def test_every_other_gated_cell(bare):
    arguments = problem(bare)
    cell = jl.hidden_parallel(bare, 2)
    papers.close(jl.scan(cell, *placed(cell, *arguments)), jl.scan(bare, *arguments), 1e-10)


@pytest.mark.parametrize("bare", CELLS, ids=str)
def test_a_step_is_the_bare_one_and_sends_once(bare):
    params, xs, carry = problem(bare)
    cell = jl.hidden_parallel(bare, 2)
    expected = jax.jit(bare.step)(params, carry, xs[0])
    where = jl.hidden_shardings(cell, params, xs[0])
    split = jax.device_put((params, carry, xs[0]), (where.params, where.carry, where.xs))
    step = jax.jit(cell.step).lower(*split).compile()
    papers.close(step(*split), expected, 1e-12)
    assert sent(step) == ({}, {"all-gather": 1})


def check_what_is_sent(cell, bare):
    """A gather a step forward and a reduce-scatter a step backward; what is outside, by name."""
    arguments = placed(cell, *problem(bare))
    compiled = lambda run: jax.jit(run).lower(*arguments).compile()
    first = {"all-gather": 1}  # of the first carry's h
    steps = {"all-gather": TIME}
    assert sent(compiled(lambda *a: jl.scan(cell, *a))) == (steps, first)
    loss = lambda *a: sum(map(jnp.sum, jax.tree.leaves(jl.scan(cell, *a))))
    steps |= {"reduce-scatter": TIME}
    # Of peepholes and b_n: their cotangents are of the h of all units, as are those of U.
    once = {} if bare.name.startswith("elman") else {"reduce-scatter": 1}
    assert sent(compiled(jax.grad(loss))) == (steps, first | once)
    of_all = {"all-reduce": 1, "reduce-scatter": 1 + len(once)}  # of x, and of the first carry
    assert sent(compiled(jax.grad(loss, (0, 1, 2)))) == (steps, first | of_all)


@pytest.mark.parametrize("bare", CELLS, ids=str)
def test_what_is_sent_is_one_collective_a_step_each_way(bare):
    check_what_is_sent(jl.hidden_parallel(bare, 2), bare)


def check_parts(cell, bare, devices):
    """Each device has one part in so many of the weights; so have Optax's states, after a step."""
    arguments = placed(cell, *problem(bare))
    optimizer = optax.adam(1e-3)

    @jax.jit
    def train(params, state, xs, carry):
        loss = lambda params: (jl.scan(cell, params, xs, carry)[1] ** 2).sum()
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    params, xs, carry = arguments
    state = optimizer.init(params)
    for params_or_moments in (params, state[0].mu, *train(params, state, xs, carry)):
        for a in jax.tree.leaves(params_or_moments):
            if a.ndim:
                part = a.addressable_shards[0].data
                assert part.shape == (*a.shape[:-1], HIDDEN // devices)
                assert a.sharding.spec == P(*(None,) * (a.ndim - 1), "hidden")


def test_each_device_has_its_part():
    check_parts(jl.hidden_parallel(LSTM, 2), LSTM, 2)


def test_params_are_drawn_where_they_belong():
    cell = jl.hidden_parallel(LSTM, 2)
    x = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float64)
    init = lambda key: cell.init(key, x)
    where = jl.hidden_shardings(cell, jax.eval_shape(init, KEY), x)
    params = jax.jit(init, out_shardings=where.params)(KEY)
    assert params.w_h.addressable_shards[0].data.shape == (HIDDEN, 4, HIDDEN // 2)
    papers.close(params, LSTM.init(KEY, x), 1e-12)
    assert where.xs.spec == P(None, None)
    assert where.carry.c.spec == P(None, "hidden")


def test_without_a_batch_axis_under_vmap_and_with_two():
    cell = jl.hidden_parallel(LSTM, 2)
    params, xs, carry = problem(LSTM, batch=(2, 3))
    run = lambda cell, *a: jl.scan(cell, params, *a)
    mapped = jax.vmap(lambda *a: run(cell, *a), (1, 0), (0, 1))
    papers.close(mapped(xs, carry), run(LSTM, xs, carry), 1e-10)
    papers.close(run(cell, xs, carry), run(LSTM, xs, carry), 1e-10)
    alone = xs[:, 0, 0], jax.tree.map(lambda a: a[0, 0], carry)
    papers.close(run(cell, *alone), run(LSTM, *alone), 1e-10)


def test_in_a_stack_zoned_out_and_by_segments():
    gru = LONG[0]
    of = lambda wrap: jl.stack(wrap(LSTM), jl.expected_zoneout(wrap(gru), h=0.1))
    deep, bare = of(lambda cell: jl.hidden_parallel(cell, 2)), of(lambda cell: cell)
    xs = problem(LSTM)[1]
    params = papers.drawn(bare, xs[0], KEY)
    run = lambda cell: jl.scan(cell, params, xs, checkpoint="sqrt", **options()["ragged"])
    papers.close(run(deep), run(bare), 1e-10)


def test_within_its_own_mesh():
    mesh = jax.make_mesh((2,), ("hidden",), axis_types=(AxisType.Auto,))
    arguments = problem(LSTM)
    with jax.set_mesh(mesh):
        actual = jax.jit(lambda *a: jl.scan(jl.hidden_parallel(LSTM, mesh), *a))(*arguments)
    papers.close(actual, jl.scan(LSTM, *arguments), 1e-10)


@pytest.mark.parametrize("shape", [(2, 1), (1, 2)])
def test_rows_alone_or_units_alone(shape):
    mesh = jax.make_mesh(shape, ("data", "hidden"), axis_types=(AxisType.Auto,) * 2)
    arguments = problem(LSTM)
    cell, with_options = jl.hidden_parallel(LSTM, mesh), {"mask": jnp.arange(TIME) % 3 > 0}
    run = lambda cell, arguments: jl.scan(cell, *arguments, **with_options)
    papers.close(run(cell, placed(cell, *arguments)), run(LSTM, arguments), 1e-10)


def test_one_device_is_the_bare_cell():
    arguments = problem(LSTM)
    cell = jl.hidden_parallel(LSTM, 1)
    papers.close(jl.scan(cell, *arguments), jl.scan(LSTM, *arguments), 0.0)
    params, xs, carry = arguments
    papers.close(cell.step(params, carry, xs[0]), LSTM.step(params, carry, xs[0]), 0.0)
    assert jl.explain(cell, params, xs) == jl.explain(LSTM, params, xs)


def test_what_serves_is_explained():
    params, xs, _ = problem(LSTM)
    cell = jl.hidden_parallel(LSTM, 2)
    answers = jl.explain(cell, params, xs)
    assert answers["blocked"] is None
    assert answers["native"] is not None
    with pytest.raises(ValueError, match="implementation 'native' can't serve"):
        jl.scan(cell, params, xs, implementation="native")


UNSPLIT = {
    "a hidden size that is a multiple of the 2 devices, got 5": jl.lstm(5),
    "no layer normalisation": jl.lstm(HIDDEN, layer_norm=True),
    "no projection": jl.lstm(HIDDEN, projection=4),
    r"params with the units as the last axis \(no heads\)": jl.slstm(HIDDEN, heads=2),
}


@pytest.mark.parametrize("message", UNSPLIT)
def test_a_cell_that_can_not_be_split_raises(message):
    bare = UNSPLIT[message]
    params, xs, carry = problem(bare)
    cell = jl.hidden_parallel(bare, 2)
    for run in (
        lambda: jl.scan(cell, params, xs),
        lambda: cell.step(params, carry, xs[0]),
        lambda: jl.hidden_shardings(cell, params, xs[0]),
        lambda: jl.explain(cell, params, xs),
    ):
        with pytest.raises(ValueError, match=f"bare: expected {message}"):
            run()


def test_a_batch_that_can_not_be_split_raises():
    mesh = jax.make_mesh((2, 1), ("data", "hidden"), axis_types=(AxisType.Auto,) * 2)
    cell = jl.hidden_parallel(LSTM, mesh)
    params, xs, carry = problem(LSTM, batch=(3,))
    expected = "with B a multiple of the 2 along 'data', got batch axes"
    with pytest.raises(ValueError, match=rf"xs: expected \(T, B, ...\) {expected} \(3,\)"):
        jl.scan(cell, params, xs, carry)
    for run in (cell.step, lambda params, carry, x: jl.hidden_shardings(cell, params, x)):
        with pytest.raises(ValueError, match=rf"x: expected \(B, ...\) {expected} \(3,\)"):
            run(params, carry, xs[0])
    with pytest.raises(ValueError, match=rf"{expected} \(\)"):
        jl.scan(cell, params, xs[:, 0])


def test_other_meshes_and_devices_that_are_not_there_raise():
    params, xs, _ = problem(LSTM)
    around = "devices: expected no mesh around but its own, which may have an axis 'data'"
    with pytest.raises(ValueError, match=around):
        jl.scan(jl.data_parallel(jl.hidden_parallel(LSTM, 2), 2), params, xs)
    with pytest.raises(ValueError, match=r"devices: expected at most \d+, .* got 999"):
        jl.scan(jl.hidden_parallel(LSTM, 999), params, xs)


def test_arguments_are_checked():
    for bare in (jl.gru_reset_before(4), jl.bidirectional(LSTM, LSTM), jl.data_parallel(LSTM)):
        with pytest.raises(ValueError, match="bare: expected a Cell of the gated recurrence"):
            jl.hidden_parallel(bare)
    with pytest.raises(ValueError, match="devices: expected a positive integer"):
        jl.hidden_parallel(LSTM, 0)
    for axes, kind in ((("hidden",), "Explicit"), (("data",), "Auto"), (("a", "hidden"), "Auto")):
        types = (AxisType[kind],) * len(axes)
        mesh = jax.make_mesh((1,) * len(axes), axes, axis_types=types, devices=jax.devices()[:1])
        with pytest.raises(ValueError, match="devices: expected axes 'hidden' and maybe 'data'"):
            jl.hidden_parallel(LSTM, mesh)
    params, xs, _ = problem(LSTM)
    with pytest.raises(ValueError, match="cell: expected a cell made by hidden_parallel"):
        jl.hidden_shardings(LSTM, params, xs[0])
    with pytest.raises(ValueError, match=r"x: expected 3 features"):
        jl.hidden_parallel(LSTM, 2).step(params, LSTM.initial_carry(params, xs[0]), xs[0, :, :2])
    assert str(jl.hidden_parallel(jl.gru(4), 2)) == "hidden_parallel(gru(4), devices=2)"


def on_eight_devices():
    """What a process of its own does, which `test_on_more_devices` starts."""
    mesh = jax.make_mesh((2, 4), ("data", "hidden"), axis_types=(AxisType.Auto,) * 2)
    cases = ((LSTM, 4, "ragged"), (LONG[0], 8, "whole"), (LSTM, mesh, "all"))
    for bare, devices, name in cases:
        # Long enough that the blocks leave out what has ended, differently in the two halves.
        time, batch = (128, 16) if devices is mesh else (TIME, BATCH)
        with_options = options(time, batch)[name]
        if devices is mesh:
            with_options["lengths"] = with_options["lengths"].at[:8].set(5)
        params, xs, carry = problem(bare, time, (batch,))
        cell = jl.hidden_parallel(bare, devices)
        split = placed(cell, params, with_nan(xs, **with_options), carry)
        actual = derived(cell, with_options)(*split)
        papers.close(actual, derived(bare, with_options)(params, xs, carry), 1e-10)
        rows = batch // (2 if devices is mesh else 1)
        units = HIDDEN // (4 if devices is mesh else devices)
        assert {s.data.shape for s in actual[0][1][1].addressable_shards} == {(time, rows, units)}
    check_what_is_sent(jl.hidden_parallel(LSTM, 4), LSTM)
    check_what_is_sent(jl.hidden_parallel(LONG[0], 8), LONG[0])
    check_parts(jl.hidden_parallel(LSTM, 8), LSTM, 8)
    check_parts(jl.hidden_parallel(LSTM, mesh), LSTM, 4)


@pytest.mark.long  # a process of its own
def test_on_more_devices():
    code = (
        "import jax; jax.config.update('jax_num_cpu_devices', 8); "
        "jax.config.update('jax_enable_x64', True); "
        "from tests.combine import test_hidden_parallel as t; t.on_eight_devices()"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
