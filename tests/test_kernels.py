import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlstm as jl
from jaxlstm import gates, kernels
from jaxlstm.blocks import in_blocks
from jaxlstm.kernels import blocked, products, reading, residual
from jaxlstm.kernels.recurrence import Inputs, Weights, accumulator
from tests import matrices, papers

KEY = jax.random.key(0)
TOLERANCE = 1e-12  # float64, a sum over some hundred rows in another order


@pytest.mark.parametrize("batch", [1, 3, 64, 100, 256, 1000])
def test_a_block_is_about_rows_long_and_divides_the_time_if_a_near_length_does(batch):
    for time in (1, 2, 7, 12, 35, 97, 120, 1024):
        length = blocked.block_length(time, batch, rows=256)
        most = max(1, min(time, 256 // batch))
        assert most / 2 <= length <= most * 1.5
        near = [c for c in range(most // 2 + 1, most * 3 // 2 + 1) if time % c == 0]
        shorter = [c for c in near if c <= most]
        assert length == max(shorter, default=min(near, default=most))


SIZES = [(1, 1), (4, 4), (5, 4), (7, 3), (8, 4), (13, 5)]  # steps, and those of a block


@pytest.mark.parametrize(("size", "reverse"), matrices.crossed(SIZES, [False, True]), ids=str)
def test_a_scan_in_blocks_is_the_scan(size, reverse):
    (time, length), values = size, papers.normal(size[0], 2)
    step = lambda carry, s: (0.9 * carry + s[1], carry * s[0])

    def block(carry, start, values):
        return lax.scan(step, carry, (start + jnp.arange(len(values)), values), reverse=reverse)

    actual = in_blocks(block, jnp.ones(2), values, length, reverse)
    expected = lax.scan(step, jnp.ones(2), (jnp.arange(time), values), reverse=reverse)
    papers.close(actual, expected, 1e-14)


def with_flags(equations):
    """The plain scan with steps left out and sequences begun anew, by `where`."""

    def run(params, carry, xs, initial, valid, resets):
        def step(carry, s):
            x, valid, reset = s
            where = lambda flag, a, b: jax.tree.map(
                lambda a, b: jnp.where(flag[:, None], a, b), a, b
            )
            carry = where(reset, initial, carry)
            new, y = equations(params, carry, x)
            return where(valid, new, carry), where(valid, y, jnp.zeros_like(y))

        return lax.scan(step, carry, (xs, valid, resets))

    return run


def fast(cell):
    def run(params, carry, xs, initial, valid, resets):
        flags = {"valid": valid, "resets": resets, "initial": initial}
        carry, ys = cell.unroll(params, carry, xs, implementation="blocked", **flags)
        return carry, jnp.where(valid[..., None], ys, 0)

    return run


def with_gradients(run, valid, resets):
    def derived(*primals):
        out, pull = jax.vjp(lambda *primals: run(*primals, valid, resets), *primals)
        return out, pull(jax.tree.map(jnp.cos, out))

    return jax.jit(derived)


BLOCKS = [*(("elman", time) for time in (1, 4, 5, 7, 9, 13)), ("gru", 7), ("lstm", 9)]
LONG = [("elman", time) for time in (4, 7, 9)]  # which the units of blocks hold too, above


@pytest.mark.parametrize("case", matrices.few(BLOCKS, LONG), ids=str)
def test_blocks_give_the_values_and_gradients_of_the_plain_scan(case, monkeypatch):
    """Of 64 sequences: blocks of four steps or three, with remainders of none, one or three."""
    monkeypatch.setattr(blocked, "ROWS", (256, 256))
    monkeypatch.setattr(blocked, "LARGE", 0)  # so that a loop is of two steps
    check_blocks(*case, features=3)


@pytest.mark.parametrize("case", matrices.few(BLOCKS[-4:], LONG), ids=str)
def test_so_they_do_with_nothing_kept(case, monkeypatch):
    monkeypatch.setattr(blocked, "ROWS", (256, 256))
    monkeypatch.setattr(residual, "FEW", 0)
    check_blocks(*case, features=4)  # as in no other test: nothing has been compiled of it


@pytest.mark.parametrize("kept", [0, 2**22])
@pytest.mark.parametrize("case", BLOCKS[-4:], ids=str)
def test_so_they_do_with_one_product_of_x_and_h(case, kept, monkeypatch):
    monkeypatch.setattr(products, "tasks", lambda rows, columns, terms: 1 + (terms > 2))
    monkeypatch.setattr(residual, "FEW", kept)
    check_blocks(*case, features=1 if kept else 2)


@pytest.mark.parametrize(
    ("batch", "features", "cell", "expected"),
    [
        (128, 64, jl.lstm(128), True),
        (65, 64, jl.lstm(128, peephole=True, cell_clip=1.0), True),
        (64, 64, jl.lstm(128), False),  # both are on one core,
        (128, 64, jl.lstm(256), False),  # and both on two
        (129, 64, jl.lstm(128), False),
        (128, 129, jl.lstm(128), False),
        (128, 64, jl.lstm(128, layer_norm=True), False),
        (128, 64, jl.gru(128), False),
    ],
)
def test_x_and_h_have_one_product_where_that_is_split_over_cores(batch, features, cell, expected):
    xs = jnp.zeros((2, batch, features))
    params = cell.init(KEY, xs[0])
    run = jax.jit(lambda *p: jl.scan(cell, *p, implementation="blocked"))
    text = run.lower(params, xs).as_text()
    assert (f"<{features + len(params.w_h)}x" in text) is expected


def test_tasks_of_a_product_as_seen_of_xla():
    """Of these it was seen whether two cores make them, or one (JAX 0.10 and 0.12)."""
    two = [(128, 512, 192), (32, 1024, 256), (32, 256, 1024), (128, 128, 512)]
    assert all(products.tasks(*shape) > 1 for shape in two)
    assert products.tasks(128, 512, 128) == products.tasks(64, 512, 128) == 1


def check_blocks(name, time, features):
    cell, equations = {
        "elman": (jl.elman(2), papers.elman_tanh),
        "gru": (jl.gru(2), papers.gru),
        "lstm": (jl.lstm(2, peephole=True), papers.lstm),
    }[name]
    xs = papers.normal(time, 64, features)
    params = papers.drawn(cell, xs[0], KEY)
    zero = cell.initial_carry(params, xs[0])
    carry, initial = (papers.away_from_zero(jax.random.key(n), zero) for n in range(2))
    valid, resets = np.random.default_rng(0).uniform(size=(2, time, 64)) < 0.7
    primals = params, carry, xs, initial
    actual = with_gradients(fast(cell), valid, resets)(*primals)
    expected = with_gradients(with_flags(equations), valid, resets)(*primals)
    papers.close(actual, expected, TOLERANCE)


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        (jl.lstm(2), 1),
        (jl.lstm(2, peephole=True, cell_clip=1.0), 1),
        (jl.lstm(2, projection=1), 1),
        (jl.elman(2), 1),
        (jl.janet(2), 1),
        (jl.gru(2), 2),
        (jl.lstm(2, layer_norm=True), 2),
    ],
    ids=str,
)
def test_the_sum_alone_is_kept_where_nothing_else_counts(cell, parts):
    z, u = kept_by(cell, 5, 3)
    assert z.shape[:2] == (5, 3)
    assert u.shape == ((5,) if parts == 2 else (0,)) + z.shape[1:]


@pytest.mark.parametrize(
    ("update", "sum_alone", "by_gates"),
    [
        (lambda theta, h, z, u: gates.sums(z, u)[0] * gates.sums(z, u)[1], True, True),
        (lambda theta, h, z, u: gates.gates(z + u)[0], True, False),
        (lambda theta, h, z, u: gates.sums(z, u)[1] + (z + u)[:, 0], True, False),
        (lambda theta, h, z, u: gates.sums(z, z)[0] + gates.gates(u)[0], False, True),
        (lambda theta, h, z, u: gates.gates(z)[0] + gates.gates(u)[1], False, True),
        (lambda theta, h, z, u: jnp.add(*lax.split(z, (1, 1), 2)) + u[..., :1], False, False),
        (lambda theta, h, z, u: lax.split(z, (2,), 1)[0] + lax.split(u, (2,), 2)[0], False, False),
        (lambda theta, h, z, u: z[:, 0] + u[:, 0], False, False),
        (lambda theta, h, z, u: z, False, False),
        (lambda theta, h, z, u: gates.gates(u)[0], False, True),
    ],
)
def test_what_an_update_does_with_its_two_products(update, sum_alone, by_gates):
    w = jnp.ones((2, 2, 2))
    inputs = Inputs(Weights(w, w, w[0]), jnp.ones((1, 2, 2)), 0.0, None, None, None)
    assert reading.only_the_sum(update, inputs) is sum_alone
    assert reading.gate_by_gate(update, inputs) is by_gates


def kept_by(cell, time, batch, features=3):
    xs = jax.ShapeDtypeStruct((time, batch, features), jnp.float32)
    params = jax.eval_shape(cell.init, KEY, xs)
    carry = jax.eval_shape(cell.initial_carry, params, jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype))
    split = lambda params, *rest: Inputs(cell.unroll.split(params), *rest, None, None, None)
    run = lambda *p: blocked.forward(cell.unroll.update, True, split(*p))[1].residual
    return jax.eval_shape(run, params, xs, carry)


@pytest.mark.parametrize(
    ("make", "features", "megabytes"),
    [
        (jl.lstm, 79, 8),
        (jl.lstm, 80, 16),
        (jl.lstm, 319, 16),
        (jl.lstm, 320, 256),
        (jl.gru, 79, 4),
        (jl.gru, 80, 8),
        (jl.gru, 703, 8),
        (jl.gru, 704, 256),
    ],
)
def test_more_is_kept_of_what_is_slower_to_compute_again(make, features, megabytes):
    """By features and units; of a GRU z and u are kept apart, which costs twice the memory."""
    a_step = {jl.lstm: 4 * 64 * 4, jl.gru: 2 * 3 * 64 * 4}[make]
    most = megabytes * 2**20 // a_step
    kept = lambda steps: len(kept_by(make(64), steps, 1, features=features).z)
    assert (kept(most), kept(most + 1)) == (most, 0)


def test_a_block_of_few_units_has_more_rows_within_bounds():
    rows = lambda *shape, **kept: blocked.block_rows(Weights(None, None, jnp.zeros(shape)), **kept)
    assert [rows(4, 64), rows(4, 200), rows(4, 256), rows(4, 4096)] == [1024, 655, 512, 512]
    megabytes = (0, 8, 8.1, 16, 64)
    assert [rows(4, 256, kept=int(n * 2**20)) for n in megabytes] == [512, 512, 256, 256, 256]
    assert [rows(4, 257, kept=int(n * 2**20)) for n in megabytes] == [512] * 5


def test_more_sequences_than_rows_of_a_block(monkeypatch):
    monkeypatch.setattr(blocked, "ROWS", (256, 256))
    cell, xs = jl.elman(2), papers.normal(3, 300, 2)
    params = papers.drawn(cell, xs[0], KEY)
    total = lambda name: lambda params: jl.scan(cell, params, xs, implementation=name)[1].sum()
    gradient = lambda name: jax.jit(jax.grad(total(name)))
    papers.close(gradient("blocked")(params), gradient("reference")(params), TOLERANCE)


def inputs():
    zeros = jnp.zeros
    return Inputs(Weights(zeros((2, 3)), zeros((3, 3)), zeros(3)), zeros((4, 1, 2)), *[None] * 4)


class Refusing:
    @staticmethod
    def supports(update, inputs):
        return "it is a Tuesday"


def test_the_first_implementation_that_can_serve_is_chosen(monkeypatch):
    assert (
        kernels.choose(None, len, inputs()) == kernels.choose("blocked", len, inputs()) == "blocked"
    )
    monkeypatch.setattr(kernels, "IMPLEMENTATIONS", {"never": Refusing, "blocked": blocked})
    assert kernels.choose(None, len, inputs()) == "blocked"
    assert kernels.answers(len, inputs()) == {"never": "it is a Tuesday", "blocked": None}


def test_a_named_implementation_that_can_not_serve_raises_and_says_why(monkeypatch):
    monkeypatch.setattr(kernels, "IMPLEMENTATIONS", {"never": Refusing, "blocked": blocked})
    with pytest.raises(ValueError, match="implementation 'never' can't serve: it is a Tuesday"):
        kernels.choose("never", len, inputs())


def test_an_unknown_implementation_raises_and_lists_the_known():
    message = "implementation: expected one of 'reference', 'native', 'blocked', got 'cudnn'"
    with pytest.raises(ValueError, match=message):
        kernels.choose("cudnn", len, inputs())


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float32",) * 2, ("float64",) * 2],
)
def test_half_precision_is_summed_in_float32(dtype, wide):
    assert accumulator(jnp.dtype(dtype)) == np.dtype(wide)
