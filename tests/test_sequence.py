import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import matrices, papers

KEY = jax.random.key(0)
CELL = jl.elman(5)
XS = jnp.asarray(papers.normal(7, 3, 4))
PARAMS = papers.drawn(CELL, XS[0], KEY)
CARRY = jl.ElmanCarry(jnp.asarray(papers.normal(3, 5)))


@jl.cell
def distance():
    """How far two points have been apart so far: a cell of pytrees, in and out."""

    def init(key, x):
        return ()

    def initial_carry(params, x, key=None):
        return jnp.zeros(x["a"].shape[:-1], x["a"].dtype)

    def step(params, carry, x):
        carry = carry + jnp.abs(x["a"] - x["b"]).sum(-1)
        return carry, {"total": carry}

    return init, initial_carry, step


def test_the_default_carry_is_the_initial_one():
    zeros = CELL.initial_carry(PARAMS, XS[0])
    papers.close(jl.scan(CELL, PARAMS, XS), jl.scan(CELL, PARAMS, XS, zeros), 0)


def test_a_sequence_of_no_steps_keeps_its_carry_and_puts_out_zeros():
    lengths = [7, 0, 2]
    carry, ys = jl.scan(CELL, PARAMS, XS, CARRY, lengths=lengths)
    np.testing.assert_array_equal(carry.h[1], CARRY.h[1])
    for n, length in enumerate(lengths):
        assert not ys[length:, n].any()
        assert ys[:length, n].all()
    np.testing.assert_array_equal(carry.h[2], ys[1, 2])


def test_reverse_stays_within_each_length():
    _, ys = jl.scan(CELL, PARAMS, XS, CARRY, lengths=[7, 0, 2], reverse=True)
    short = jl.scan(CELL, PARAMS, XS[1::-1, 2], jl.ElmanCarry(CARRY.h[2]))[1]
    np.testing.assert_allclose(ys[:2, 2], short[::-1], rtol=1e-12)
    assert not ys[2:, 2].any()


def test_a_reset_wipes_out_a_carry_of_nan():
    carry = jl.ElmanCarry(CARRY.h.at[0].set(jnp.nan))
    resets = np.zeros((7, 3), bool)
    resets[2, 0] = True
    (last,), ys = jl.scan(CELL, PARAMS, XS, carry, resets=resets)
    assert jnp.isnan(ys[:2, 0]).all()
    assert jnp.isfinite(ys[2:]).all()
    assert jnp.isfinite(last).all()


def test_a_reset_past_the_length_changes_nothing():
    resets = np.zeros((7, 3), bool)
    resets[5:] = True
    lengths = [5, 4, 0]
    with_them = jl.scan(CELL, PARAMS, XS, CARRY, lengths=lengths, resets=resets)
    papers.close(with_them, jl.scan(CELL, PARAMS, XS, CARRY, lengths=lengths), 0)


def test_a_reset_on_a_masked_step_still_counts():
    mask, resets = np.ones((2, 7, 3), bool)
    mask[3:], resets[:] = False, False
    resets[4] = True
    carry, _ = jl.scan(CELL, PARAMS, XS, CARRY, mask=mask, resets=resets)
    assert not carry.h.any()


def test_flags_of_time_alone_are_for_the_whole_batch():
    mask, resets = np.arange(7) != 3, np.arange(7) == 5
    every = lambda a: np.repeat(a[:, None], 3, 1)
    alone = jl.scan(CELL, PARAMS, XS, CARRY, mask=mask, resets=resets)
    each = jl.scan(CELL, PARAMS, XS, CARRY, mask=every(mask), resets=every(resets))
    papers.close(alone, each, 1e-15)
    papers.close(
        jl.scan(CELL, PARAMS, XS, CARRY, lengths=np.array(4), reverse=True),
        jl.scan(CELL, PARAMS, XS, CARRY, lengths=[4, 4, 4], reverse=True),
        1e-15,
    )


def test_lengths_for_the_first_batch_axis_are_for_all_of_the_second():
    xs, carry = jnp.stack([XS, 2 * XS], 2), jl.ElmanCarry(jnp.stack([CARRY.h] * 2, 1))
    _, ys = jl.scan(CELL, PARAMS, xs, carry, lengths=[7, 0, 2])
    expected = jl.scan(CELL, PARAMS, 2 * XS, CARRY, lengths=[7, 0, 2])[1]
    np.testing.assert_allclose(ys[:, :, 1], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_that_can_not_be_looked_at_count_as_the_nearest_possible(reverse):
    options = {"carry": CARRY, "reverse": reverse}
    run = jax.jit(lambda lengths: jl.scan(CELL, PARAMS, XS, lengths=lengths, **options))
    papers.close(run(jnp.array([9, -3, 2])), run(jnp.array([7, 0, 2])), 0)


def test_pytrees_in_and_out():
    xs = {"a": XS, "b": XS - 0.5}
    carry, ys = jl.scan(distance(), (), xs, lengths=[7, 0, 2])
    np.testing.assert_allclose(carry, [14, 0, 4], rtol=1e-12)
    np.testing.assert_allclose(ys["total"][:, 2], [2, 4, 0, 0, 0, 0, 0], rtol=1e-12)


def test_explain_lists_each_implementation_and_the_reference():
    assert list(jl.explain(CELL, PARAMS, XS)) == ["native", "blocked", "reference"]
    assert jl.explain(distance(), (), {"a": XS, "b": XS}) == {"reference": None}
    shape = jax.ShapeDtypeStruct(XS.shape, XS.dtype)
    assert jl.explain(CELL, PARAMS, shape) == jl.explain(CELL, PARAMS, XS)


FLAGS = np.ones((7, 3), bool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(cell=jl.bidirectional(CELL, CELL)), r"cell: expected a Cell .*got bidirectional"),
        (dict(cell=lambda x: x), r"cell: expected a Cell .*got <function"),
        (dict(xs=[1.0, 2.0]), "xs: expected arrays with time as their first axis, got float 1.0"),
        (dict(xs=()), r"xs: expected an array \(T, \*B, D\), got \(\)"),
        (dict(xs=jnp.float64(1)), r"xs: expected arrays with time as .* got shape \(\)"),
        (dict(xs=(XS, XS[1:])), r"xs: expected one number of steps, got \[6, 7\]"),
        (
            dict(xs=XS[..., 1:]),
            r"expected 4 features on the last axis, as in params.w_x, got .* 3\)",
        ),
        (dict(xs=jnp.ones((7, 3, 4), int)), "xs: expected an array of floating-point numbers, got"),
        (dict(carry=(CARRY.h,)), r"carry: expected one of elman\(5\) with shapes .*got"),
        (dict(carry=jl.ElmanCarry(CARRY.h[:2])), r"carry: expected .*\(3, 5\).*got.*\(2, 5\)"),
        (dict(lengths=[1.0, 2.0, 3.0]), r"lengths: expected integers, got shape \(3,\) of float64"),
        (dict(lengths=[1, 2]), r"lengths: expected the batch axes of xs.* got shape \(2,\)"),
        (dict(lengths=[1, 2, 8]), r"lengths: expected values in \[0, 7\], got 1 to 8"),
        (dict(lengths=[1, 2, -1]), r"lengths: expected values in \[0, 7\], got -1 to 2"),
        (dict(mask=FLAGS.astype(int)), r"mask: expected booleans, got shape \(7, 3\) of int64"),
        (dict(mask=FLAGS[:6]), r"mask: expected time and the batch axes of xs.*got shape \(6, 3\)"),
        (dict(mask=np.array(True)), r"mask: expected time and the batch axes .*got shape \(\)"),
        (dict(resets=FLAGS * 1.0), r"resets: expected booleans, got shape \(7, 3\) of float64"),
        (dict(resets=FLAGS[:, :2]), r"resets: expected time and the batch.*got shape \(7, 2\)"),
        (dict(lengths=[1, 2, 3], mask=FLAGS[:, 0]), "the same batch axes in each, got ranks"),
        (
            dict(implementation="cudnn"),
            "implementation: expected one of 'reference', 'native', 'blocked', got",
        ),
    ],
)
def test_arguments_that_do_not_fit_raise(arguments, message):
    arguments = dict(cell=CELL, params=PARAMS, xs=XS) | arguments
    with pytest.raises(ValueError, match=message):
        jl.scan(**arguments)


def test_a_named_implementation_of_a_cell_without_one_raises():
    with pytest.raises(ValueError, match=r"implementation: distance\(\) has no 'blocked', only"):
        jl.scan(distance(), (), {"a": XS, "b": XS}, implementation="blocked")


CHECKPOINTS = [1, 3, 7, 100, "sqrt"]


@pytest.mark.parametrize(
    ("checkpoint", "name"), matrices.crossed(CHECKPOINTS, ["blocked", "reference"])
)
def test_checkpointing_changes_neither_values_nor_gradients(checkpoint, name):
    cell, xs = jl.lstm(5), jnp.asarray(papers.normal(7, 3, 4))
    params = papers.drawn(cell, xs[0], KEY)
    options = dict(
        lengths=[7, 0, 4],
        mask=np.arange(21).reshape(7, 3) % 4 != 1,
        resets=np.arange(21).reshape(7, 3) % 5 == 2,
        reverse=True,
        implementation=name,
    )

    def loss(params, xs, **more):
        carry, ys = jl.scan(cell, params, xs, **options, **more)
        return jnp.sin(ys).sum() + jnp.cos(carry.c).sum(), (carry, ys)

    run = jax.value_and_grad(loss, (0, 1), has_aux=True)
    papers.close(run(params, xs, checkpoint=checkpoint), run(params, xs), 1e-13)


def test_a_segment_is_traced_again_for_the_gradient_and_keeps_its_first_carry_alone():
    cell, xs = jl.lstm(5), jnp.ones((64, 3, 4))
    params = papers.drawn(cell, xs[0], KEY)
    loss = lambda xs, **more: jl.scan(cell, params, xs, **more)[0].h.sum()
    sizes = lambda **more: [
        a.size for a in jax.tree.leaves(jax.vjp(lambda xs: loss(xs, **more), xs)[1])
    ]
    assert sum(sizes(checkpoint="sqrt")) < sum(sizes()) / 2


def test_a_memory_is_not_kept_for_each_segment():
    cell, xs = jl.attention(jl.gru(5), "general", memory=6, size=3), jnp.ones((20, 2, 4))
    params = papers.drawn(cell, xs[0], KEY)
    memory = jnp.asarray(papers.normal(77, 2, 6))

    def loss(params, memory, **more):
        carry = jl.attend(cell, params, xs[0], memory)
        return jl.scan(cell, params, xs, carry, **more)[1].output.sum()

    run = lambda **more: jax.grad(lambda *a: loss(*a, **more), (0, 1))
    assert "2,77" in str(jax.make_jaxpr(run(checkpoint=5))(params, memory))
    assert "4,2,77" not in str(jax.make_jaxpr(run(checkpoint=5))(params, memory))
    papers.close(run(checkpoint=5)(params, memory), run()(params, memory), 1e-5)


@pytest.mark.parametrize("checkpoint", [0, -1, 2.5, "square", True])
def test_segments_that_are_none_raise(checkpoint):
    cell, xs = jl.lstm(5), jnp.ones((7, 3, 4))
    with pytest.raises(ValueError, match="checkpoint: expected"):
        jl.scan(cell, papers.drawn(cell, xs[0], KEY), xs, checkpoint=checkpoint)


@jl.cell
def scaled():
    """A sum of inputs, scaled by a part of the carry that a step hands on as it is."""

    def step(params, carry, x):
        h = carry[0] / 2 + carry[1] * x
        return (h, carry[1]), h

    return (
        lambda key, x: (),
        lambda params, x, key=None: (jnp.zeros(x.shape, x.dtype), jnp.ones(x.shape, x.dtype)),
        step,
    )


@pytest.mark.parametrize("checkpoint", [None, 2])
def test_a_reset_of_what_no_step_changes_lasts(checkpoint):
    start, resets = (jnp.zeros(1), jnp.full(1, 10.0)), jnp.arange(6) == 1
    (_, scale), ys = jl.scan(
        scaled(), (), jnp.ones((6, 1)), start, resets=resets, checkpoint=checkpoint
    )
    np.testing.assert_allclose(ys[:, 0], [10, 1, 1.5, 1.75, 1.875, 1.9375])
    assert scale == 1
