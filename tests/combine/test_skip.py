import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
XS = jnp.asarray(papers.normal(6, 3, 4))
LENGTHS = [6, 0, 2]
BOTH = jl.bidirectional(jl.lstm(4), jl.gru(4), combine="sum")


@pytest.mark.parametrize("bare", [jl.lstm(4), BOTH], ids=repr)
def test_the_input_is_added_or_goes_on_beside(bare):
    params = papers.drawn(bare, XS[0], KEY)
    run = lambda layer: (
        jl.scan(layer, params, XS, lengths=LENGTHS)
        if isinstance(layer, jl.Cell)
        else layer.apply(params, XS, lengths=LENGTHS)
    )
    carry, ys = run(bare)
    within = jnp.arange(6)[:, None, None] < jnp.array(LENGTHS)[:, None]
    xs = jnp.where(within, XS, 0)
    papers.close(run(jl.residual(bare)), (carry, xs + ys), 1e-13)
    papers.close(run(jl.skip(bare)), (carry, jnp.concatenate([ys, xs], -1)), 1e-13)


def test_nan_in_padding_does_not_go_around_a_layer():
    padding = np.arange(6)[:, None, None] >= np.array(LENGTHS)[:, None]
    params = papers.drawn(BOTH, XS[0], KEY)
    loss = lambda xs: jnp.sin(jl.residual(BOTH).apply(params, xs, lengths=LENGTHS)[1]).sum()
    spoilt = jnp.where(padding, jnp.nan, XS)
    papers.close(jax.value_and_grad(loss)(spoilt), jax.value_and_grad(loss)(XS), 1e-13)


def test_a_fast_path_is_kept():
    cell = jl.residual(jl.lstm(4))
    params = papers.drawn(cell, XS[0], KEY)
    assert list(jl.explain(cell, params, XS)) == ["native", "blocked", "reference"]


def test_in_a_stack_each_layer_sees_all_before_it():
    deep = jl.stack(jl.skip(jl.lstm(2)), jl.skip(jl.lstm(3)), jl.lstm(5))
    assert [p.w_x.shape[0] for p in deep.init(KEY, XS[0])] == [4, 6, 9]


def test_what_does_not_fit_raises():
    for wrap in (jl.residual, jl.skip):
        with pytest.raises(ValueError, match="bare: expected a Cell or a Layer, got 5"):
            wrap(5)
        with pytest.raises(ValueError, match="bare: expected a layer whose outputs are as many"):
            wrap(jl.pyramid(jl.lstm(5)))
    cell = jl.residual(jl.lstm(5))
    with pytest.raises(ValueError, match=r"the output: expected shape \(6, 3, 4\) as the input"):
        jl.scan(cell, papers.drawn(cell, XS[0], KEY), XS)
