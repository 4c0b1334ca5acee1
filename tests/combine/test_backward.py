import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
XS = jnp.asarray(papers.normal(6, 3, 4))
LENGTHS = [6, 0, 2]
CELL = jl.gru(5)
BACK = jl.backward(CELL)
PARAMS = papers.drawn(BACK, XS[0], KEY)


def test_each_sequence_runs_from_its_own_last_step_to_its_first():
    start = jl.GRUCarry(jnp.asarray(papers.normal(3, 5)))
    carry, ys = BACK.apply(PARAMS, XS, start, lengths=LENGTHS)
    for n, length in enumerate(LENGTHS):
        last, hs = jl.scan(CELL, PARAMS, XS[:length, n][::-1], jl.GRUCarry(start.h[n]))
        papers.close(carry.h[n], last.h, 1e-14)
        np.testing.assert_allclose(ys[:length, n], hs[::-1], rtol=1e-12)
        assert not ys[length:, n].any()


def test_layers_in_turns_are_a_stack():
    turns = jl.stack(CELL, jl.backward(CELL))
    params = papers.drawn(turns, XS[0], KEY)
    (first, second), ys = turns.apply(params, XS)
    ahead, hs = jl.scan(CELL, params[0], XS)
    back, zs = jl.scan(CELL, params[1], hs, reverse=True)
    papers.close((first, second, ys), (ahead, back, zs), 1e-14)


def test_bad_arguments_raise():
    with pytest.raises(ValueError, match=r"bare: expected a Cell, got backward\(gru\(5\)\)"):
        jl.backward(BACK)
    with pytest.raises(ValueError, match="options of a Layer"):
        BACK.apply(PARAMS, XS, reverse=True)
