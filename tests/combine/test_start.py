import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
XS = jnp.asarray(papers.normal(6, 3, 4))
BARE = jl.lstm(5)
CELL = jl.learned_start(BARE)
PARAMS = papers.drawn(CELL, XS[0], KEY)


def test_a_run_and_each_segment_begin_with_the_start():
    start = jax.tree.map(lambda a: jnp.broadcast_to(a, (3, 5)), PARAMS.start)
    resets = np.arange(6)[:, None] % 3 == np.arange(3)
    expected = jl.scan(BARE, PARAMS.cell, XS, start)
    papers.close(jl.scan(CELL, PARAMS, XS), expected, 1e-13)
    _, ys = jl.scan(CELL, PARAMS, XS, resets=resets)
    _, alone = jl.scan(BARE, PARAMS.cell, XS[4:, 1], PARAMS.start)
    np.testing.assert_allclose(ys[4:, 1], alone, rtol=1e-12)


def test_it_begins_as_the_bare_cell_and_keeps_its_fast_path():
    params = CELL.init(KEY, XS[0])
    papers.close(jl.scan(CELL, params, XS), jl.scan(BARE, params.cell, XS), 0)
    assert jl.explain(CELL, params, XS) == jl.explain(BARE, params.cell, XS)


def test_the_start_of_pictures_and_of_other_inputs():
    picture = jl.learned_start(jl.convlstm(2, (3, 3)), axes=3)
    params = picture.init(KEY, jnp.zeros((7, 5, 6, 1)))
    assert params.start.h.shape == (5, 6, 2)
    assert jl.scan(picture, params, jnp.zeros((4, 7, 5, 6, 1)))[1].shape == (4, 7, 5, 6, 2)
    timed = jl.learned_start(jl.time_aware_lstm(5))
    x = jl.TimeAwareLSTMInput(XS[0], XS[0, :, 0])
    assert timed.init(KEY, x).start.c.shape == (5,)


def test_half_precision_has_a_cell_state_in_float32():
    xs = XS.astype(jnp.bfloat16)
    params = papers.drawn(CELL, xs[0], KEY)
    assert params.start.c.dtype == xs.dtype
    carry, ys = jl.scan(CELL, params, xs)
    assert (carry.c.dtype, ys.dtype) == (jnp.float32, xs.dtype)


def test_carries_that_can_not_be_learned_raise():
    with pytest.raises(ValueError, match="bare: expected a Cell, got 5"):
        jl.learned_start(5)
    with pytest.raises(ValueError, match="axes: expected a positive integer, got 0"):
        jl.learned_start(BARE, axes=0)
    with pytest.raises(ValueError, match=r"key: .* draws masks and needs a key"):
        jl.learned_start(jl.zoneout(BARE, h=0.1)).init(KEY, XS[0])
