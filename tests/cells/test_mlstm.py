import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.cells.mlstm import CHUNK, chunkwise, parallel
from tests import matrices, papers

KEY = jax.random.key(0)
FORGET = ["sigmoid", "exp"]
FORMS = ["reference", "chunkwise", "parallel"]
LONG = 1e-11  # float64 sums over some ten steps in another order, and their gradients


def case(cell, time=7, batch=(3,), features=4):
    """Params, xs, a carry and an initial one, none of them zero; valid and resets."""
    xs = papers.normal(time, *batch, features)
    params = papers.drawn(cell, xs[0], KEY)
    zero = cell.initial_carry(params, xs[0])
    carry, initial = (papers.away_from_zero(jax.random.key(n), zero) for n in range(2))
    chance = np.random.default_rng(0).uniform(size=(2, *xs.shape[:-1]))
    return (params, jnp.asarray(xs), carry, initial), chance[0] < 0.7, chance[1] < 0.4


def steps(forget, params, xs, carry, initial, valid, resets):
    """The plain scan with steps left out and sequences begun anew."""

    def step(carry, s):
        x, valid, reset = s
        where = lambda flag, a, b: jax.tree.map(
            lambda a, b: jnp.where(flag.reshape(flag.shape + (1,) * (a.ndim - 1)), a, b), a, b
        )
        carry = where(reset, initial, carry)
        new, y = jl.mlstm_step(params, carry, x, forget=forget)
        return where(valid, new, carry), where(valid, y, jnp.zeros_like(y))

    return jax.lax.scan(step, carry, (xs, valid, resets))


def derived(run, primals):
    def both(*primals):
        out, pull = jax.vjp(run, *primals)
        return out, pull(jax.tree.map(jnp.cos, out))

    return jax.jit(both)(*primals)


@functools.cache
def by_steps(forget):
    """A problem and what the plain scan makes of it."""
    primals, valid, resets = case(jl.mlstm(4, heads=2, key_size=3, forget=forget))
    run = lambda *primals: steps(forget, *primals, valid, resets)
    return primals, valid, resets, derived(run, primals)


@pytest.mark.parametrize(("form", "forget"), matrices.crossed([3, 1, None], FORGET))
def test_chunks_of_any_size_are_the_steps_from_any_carry_and_after_any_reset(form, forget):
    """None is all steps at once; chunks of 3 leave one over."""
    primals, valid, resets, expected = by_steps(forget)
    whole = parallel if form is None else functools.partial(chunkwise, chunk=form)

    def run(params, xs, carry, initial):
        carry, ys = whole(params, carry, xs, valid, resets, initial, forget)
        return carry, jnp.where(valid[..., None], ys, 0)

    papers.close(derived(run, primals), expected, LONG)


def test_a_scan_is_in_chunks_of_at_most_their_size():
    cell = jl.mlstm(2)
    (params, xs, carry, _), _, _ = case(cell, CHUNK + 1, (), 2)
    run = lambda name, xs=xs: jl.scan(cell, params, xs, carry, implementation=name)
    papers.close(run(None), run("reference"), LONG)
    for time, chunks in ((CHUNK, 1), (CHUNK + 1, 2)):
        program = jax.make_jaxpr(functools.partial(run, None))(xs[:time])
        assert f"length={chunks}" in str(program)


def test_flags_may_lack_batch_axes():
    cell = jl.mlstm(2)
    (params, xs, carry, _), valid, resets = case(cell, 5, (3, 2))
    run = lambda name: jl.scan(
        cell, params, xs, carry, mask=valid[..., 0], resets=resets[..., 0], implementation=name
    )
    papers.close(run("chunkwise"), run("reference"), LONG)


@pytest.mark.parametrize("forget", FORGET)
def test_one_head_by_hand_without_the_stabiliser(forget):
    of = lambda *values: jnp.array(values, jnp.float64)
    params = jl.MLSTMParams(
        of(0.5, -1.0).reshape(1, 2, 1, 1),
        of(2.0, 0.3).reshape(1, 2, 1, 1),
        of(0.7, -0.4).reshape(1, 2, 1),
        of(0.1, 0.2).reshape(2, 1, 1),
        of(-0.3, 0.4).reshape(2, 1, 1),
        of(0.5, 0.6).reshape(2, 1),
    )
    carry = jl.MLSTMCarry(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1)), jnp.zeros(1))
    c = n = 0.0
    for x in (1.5, -0.2, 4.0):
        q, k, v = 0.5 * x + 0.1, -1.0 * x + 0.2, 2.0 * x - 0.3
        i = math.exp(0.7 * x + 0.5)
        f = math.exp(-0.4 * x + 0.6)
        f = f / (1 + f) if forget == "sigmoid" else f
        c, n = f * c + i * k * v, f * n + i * k
        h = c * q / max(abs(n * q), 1) / (1 + math.exp(-(0.3 * x + 0.4)))
        carry, y = jl.mlstm_step(params, carry, of(x), forget=forget)
        states = [float(a.ravel()[0] * jnp.exp(carry.m[0])) for a in (carry.c, carry.n)]
        np.testing.assert_allclose([*states, y[0]], [c, n, h], rtol=1e-13)


def test_what_is_stored_under_a_key_is_read_by_it():
    """x is a key of 3, a value of 3 and a one where nothing is to be written."""
    eye, no = jnp.eye(3), jnp.zeros((3, 3))
    params = jl.MLSTMParams(
        jnp.stack([jnp.concatenate([w, no, no[:1]]) for w in (eye, 3**0.5 * eye)], 1)[:, :, None],
        jnp.stack([jnp.concatenate([no, w, no[:1]]) for w in (eye, no)], 1)[:, :, None],
        jnp.zeros((7, 2, 1)).at[6, 0].set(-100.0),
        jnp.zeros((2, 1, 3)),
        jnp.zeros((2, 1, 3)).at[1].set(50.0),  # an open output gate
        jnp.array([[0.0], [50.0]]),  # nothing forgotten
    )
    values = jnp.asarray(papers.normal(3, 3))
    write = jnp.concatenate([eye, values, jnp.zeros((3, 1))], 1)
    read = jnp.concatenate([eye[::-1], no, jnp.ones((3, 1))], 1)
    _, ys = jl.scan(jl.mlstm(3), params, jnp.concatenate([write, read]))
    np.testing.assert_allclose(ys[3:], values[::-1], rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shift", [-30.0, 2.0, 30.0])
def test_the_stabiliser_does_not_matter(form, shift):
    cell = jl.mlstm(4, heads=2)
    (params, xs, carry, _), _, _ = case(cell)
    less = math.exp(-shift)
    shifted = jl.MLSTMCarry(less * carry.c, less * carry.n, carry.m + shift)
    run = lambda carry: jl.scan(cell, params, xs, carry, implementation=form)[1]
    papers.close(run(shifted), run(carry), 1e-13)


@pytest.mark.parametrize(("form", "forget"), matrices.crossed(FORMS, FORGET))
def test_huge_gates_overflow_nowhere_and_what_comes_after_them_is_exact(form, forget):
    """In float32, where 1e-3 is lost in a sum with 1e4; two features are the gates' alone."""
    cell = jl.mlstm(4, heads=2, forget=forget)
    (params, xs, _, _), _, _ = case(cell, 8, features=5)
    gates = jnp.array([[[0, 0], [-1, 1]], [[1, -1], [0, 0]]], jnp.float64)
    w_qk, w_vo, w_if = (w.at[3:].set(v) for w, v in zip(params, (0, 0, gates), strict=False))
    params = params._replace(w_qk=w_qk, w_vo=w_vo, w_if=w_if)
    xs = xs.at[..., 3:].set(0).at[1, :, 3].set(1e4).at[5, :, 4].set(3e4)
    params, xs = jax.tree.map(lambda a: a.astype(jnp.float32), (params, xs))

    def loss(params, xs):
        carry, ys = jl.scan(cell, params, xs, implementation=form)
        return (ys**2).sum(), (carry, ys)

    slopes, (carry, ys) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, xs)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((slopes, carry)))
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    np.testing.assert_allclose(ys, jl.scan(cell, *wide, implementation="reference")[1], atol=1e-5)


@pytest.mark.parametrize(("form", "dtype"), matrices.crossed(FORMS, ["float32", "float64"]))
def test_a_query_of_zero_reads_zero_and_its_derivatives_are_finite(form, dtype):
    """With exp(-m) smaller than any number of that dtype, nᵀq / nᵀq is 0/0."""
    cell, xs = jl.mlstm(2), jnp.zeros((3, 4), dtype)
    params = papers.drawn(cell, xs[0], KEY)
    huge = {"float32": 200, "float64": 2000}[dtype]
    params = params._replace(b_qk=0 * params.b_qk, b_if=params.b_if.at[0].set(huge))
    run = lambda xs: jl.scan(cell, params, xs, implementation=form)[1]
    np.testing.assert_array_equal(run(xs), np.zeros((3, 2)))
    gradient = jax.grad(lambda xs: run(xs).sum())
    assert np.isfinite(jax.jit(functools.partial(jax.jvp, gradient))((xs,), (xs + 1,))).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_carry_of_nan_is_gone_once_reset(form):
    cell = jl.mlstm(4)
    (params, xs, carry, _), _, _ = case(cell, 5, ())
    broken, resets = jax.tree.map(lambda a: a * jnp.nan, carry), jnp.arange(5) == 0

    def loss(params, xs):
        ys = jl.scan(cell, params, xs, broken, resets=resets, implementation=form)[1]
        return (ys**2).sum(), ys

    slopes, ys = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, xs)
    papers.close(ys, jl.scan(cell, params, xs, implementation="reference")[1], LONG)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(slopes))


def test_heads_are_cells_apart():
    cell = jl.mlstm(6, heads=2, key_size=2)
    (params, xs, carry, _), _, _ = case(cell)
    last, ys = jl.scan(cell, params, xs, carry)
    for head in range(2):
        mine = lambda a, axis, head=head: jnp.take(a, jnp.array([head]), axis)
        alone = jl.MLSTMParams(*(mine(w, 2) for w in params[:3]), *(mine(b, 1) for b in params[3:]))
        of = functools.partial(jax.tree.map, functools.partial(mine, axis=1))
        expected, start = (of(last), ys[..., 3 * head : 3 * head + 3]), of(carry)
        papers.close(jl.scan(jl.mlstm(3, key_size=2), alone, xs, start), expected, LONG)


def test_weights_are_glorot_uniform_and_biases_zero_but_the_forget_gates():
    params = jl.init_mlstm(KEY, 50, 60, heads=4, key_size=5, dtype=jnp.float64)
    for w, outputs in zip(params[:3], (20, 60, 4), strict=True):
        bound = math.sqrt(6 / (50 + outputs))
        for n in range(2):
            assert 0.95 * bound < np.abs(w[:, n]).max() <= bound
    assert not params.b_qk.any()
    assert not params.b_vo.any()
    np.testing.assert_array_equal(params.b_if, [[0] * 4, [3, 4, 5, 6]])
    exponential = jl.mlstm(4, forget="exp").init(KEY, jnp.ones(3))
    assert not exponential.b_if.any()


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_stays_half_precision_but_for_the_states(form):
    cell, xs = jl.mlstm(4, heads=2), jnp.asarray(papers.normal(6, 3, 4), jnp.bfloat16)
    params = papers.drawn(cell, xs[0], KEY)
    run = lambda params, xs: jl.scan(cell, params, xs, implementation=form)
    carry, ys = run(params, xs)
    assert {a.dtype for a in (*params, ys)} == {jnp.dtype(jnp.bfloat16)}
    assert {a.dtype for a in carry} == {jnp.dtype(jnp.float32)}
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    np.testing.assert_allclose(ys.astype(float), run(*wide)[1], rtol=2**-8)  # rounded once


def test_an_unknown_implementation_raises_and_lists_the_known():
    cell, xs = jl.mlstm(4), jnp.ones((5, 3))
    params = papers.drawn(cell, xs[0], KEY)
    assert jl.explain(cell, params, xs) == dict.fromkeys(["chunkwise", "parallel", "reference"])
    known = "'reference', 'chunkwise', 'parallel'"
    with pytest.raises(ValueError, match=f"implementation: expected one of {known}, got 'blocked'"):
        jl.scan(cell, params, xs, implementation="blocked")


@pytest.mark.parametrize("size", [0, -1, 2.0, "5", True])
def test_sizes_that_are_none_raise(size):
    with pytest.raises(ValueError, match=f"hidden: expected a positive integer, got {size!r}"):
        jl.mlstm(size)
    with pytest.raises(ValueError, match="heads: expected a positive integer"):
        jl.mlstm(4, heads=size)
    with pytest.raises(ValueError, match="key_size: expected a positive integer"):
        jl.mlstm(4, key_size=size)
    with pytest.raises(ValueError, match="features: expected a positive integer"):
        jl.init_mlstm(KEY, size, 4)


def test_heads_that_do_not_divide_the_units_raise():
    with pytest.raises(ValueError, match="heads: expected a divisor of hidden, which is 6, got 4"):
        jl.mlstm(6, heads=4)


def test_an_unknown_forget_gate_raises():
    message = r"forget: expected one of \['sigmoid', 'exp'\], got 'relu'"
    with pytest.raises(ValueError, match=message):
        jl.mlstm(4, forget="relu")
    (params, xs, carry, _), _, _ = case(jl.mlstm(4))
    with pytest.raises(ValueError, match=message):
        jl.mlstm_step(params, carry, xs[0], forget="relu")


def test_shapes_and_dtypes_that_do_not_fit_raise():
    with pytest.raises(ValueError, match="x: expected an array of floating-point numbers, got"):
        jl.mlstm(4).init(KEY, jnp.ones(3, int))
    cell = jl.mlstm(4)
    (params, xs, carry, _), _, _ = case(cell)
    with pytest.raises(ValueError, match=r"x: expected 4 features .* got shape \(3, 3\)"):
        jl.mlstm_step(params, carry, xs[0, :, :3])
    message = r"carry.c: expected shape \(2, 1, 4, 4\) .* got shape \(3, 1, 4, 4\)"
    with pytest.raises(ValueError, match=message):
        jl.mlstm_step(params, carry, xs[0, :2])
