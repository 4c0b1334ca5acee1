import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import matrices, papers

KEY = jax.random.key(0)
CELLS = [
    jl.lstm(4, peephole=True),
    jl.gru(4),
    jl.gru_reset_before(4),
    jl.stack(jl.lstm(4), jl.zoneout(jl.gru(3), h=0.1)),
    jl.variational_dropout(jl.lstm(4), 0.5),
    jl.minlstm(4),
]


def drawn(cell, batch, features=3, time=5):
    xs = jnp.asarray(papers.normal(time, *batch, features))
    params = papers.drawn(cell, xs[0], KEY)
    return params, xs, cell.initial_carry(params, xs[0], KEY)


@pytest.mark.parametrize(("cell", "batch"), matrices.crossed(CELLS, [(2,), (), (2, 1)]), ids=str)
def test_a_stream_is_a_scan(cell, batch):
    params, xs, carry = drawn(cell, batch)
    expected = jl.scan(cell, params, xs, carry)
    step, ys = jl.streaming(cell, params, xs[0]), []
    for x in xs:
        carry, y = step(carry, x)
        ys.append(y)
    expected = jax.tree.leaves((expected[0], list(expected[1])))
    for a, e in zip(jax.tree.leaves((carry, ys)), expected, strict=True):
        if jnp.issubdtype(a.dtype, jnp.floating):  # and not a key
            np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-12)


def test_the_new_carry_takes_the_place_of_the_old():
    params, xs, carry = drawn(jl.lstm(4), (2,))
    step = jl.streaming(jl.lstm(4), params, jax.ShapeDtypeStruct(xs[0].shape, xs.dtype))
    after, _ = step(carry, xs[0])
    assert carry.h.is_deleted()
    assert not after.h.is_deleted()
    assert not any(a.is_deleted() for a in jax.tree.leaves(params))


def test_a_start_that_is_a_param_stays():
    cell = jl.learned_start(jl.gru(4))
    params, xs, carry = drawn(cell, ())
    carry, _ = jl.streaming(cell, params, xs[0])(carry, xs[0])
    assert not params.start.h.is_deleted()


def test_nothing_is_compiled_after_the_first():
    cell = jl.gru(4)
    params, xs, carry = drawn(cell, (2,))
    step, steps = jl.streaming(cell, params, xs[0]), list(xs)
    with jax.no_tracing():
        for x in steps:
            carry, _ = step(carry, x)


def test_what_does_not_fit_raises():
    cell = jl.gru(4)
    params, xs, carry = drawn(cell, (2,))
    with pytest.raises(ValueError, match=r"cell: expected a Cell \(a Layer needs a whole"):
        jl.streaming(jl.bidirectional(cell, cell), params, xs[0])
    with pytest.raises(ValueError, match=r"implementation: expected .* got 'fast'"):
        jl.streaming(cell, params, xs[0], implementation="fast")
    with pytest.raises(ValueError, match=r"features|params.w_x"):
        jl.streaming(cell, params, jnp.ones((2, 5)))
    with pytest.raises(TypeError, match="compiled"):
        jl.streaming(cell, params, xs[0])(carry, jnp.ones((3, 3)))
