import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import matrices, papers

KEY = jax.random.key(0)
XS = papers.normal(7, 3, 4)
LENGTHS = np.array([7, 0, 3])
CELL = jl.lstm(5)
BOTH = jl.bidirectional(CELL, CELL)


@pytest.mark.parametrize(("factor", "lengths"), matrices.crossed([1, 3, 2, 10], [None, LENGTHS]))
def test_steps_go_together(factor, lengths):
    layer = jl.pyramid(CELL, factor=factor)
    params = papers.drawn(layer, XS[0], KEY)
    carry, ys = layer.apply(params, XS, lengths=lengths)
    assert ys.shape == (-(-7 // factor), 3, 5)
    for n, length in enumerate([7] * 3 if lengths is None else lengths):
        frames = [XS[t : min(t + factor, length), n] for t in range(0, length, factor)]
        filled = [np.pad(f, ((0, factor - len(f)), (0, 0))).reshape(-1) for f in frames]
        alone = np.array(filled).reshape(-1, factor * 4)
        last, hs = jl.scan(CELL, params, alone)
        papers.close(jax.tree.map(lambda a, n=n: a[n], carry), last, 1e-13)
        np.testing.assert_allclose(ys[: len(hs), n], hs, atol=1e-13)
        assert not ys[len(hs) :, n].any()


def test_layers_behind_see_the_shorter_lengths():
    deep = jl.stack(BOTH, jl.pyramid(BOTH), jl.pyramid(CELL), CELL)
    params = papers.drawn(deep, XS[0], KEY)
    _, ys = deep.apply(params, XS, lengths=LENGTHS)
    assert ys.shape == (2, 3, 5)
    np.testing.assert_array_equal(deep.shorten(LENGTHS), [2, 0, 1])
    for n, length in enumerate(LENGTHS):
        _, alone = deep.apply(params, XS[:length, n])
        np.testing.assert_allclose(ys[: len(alone), n], alone, atol=1e-13)
        assert not ys[len(alone) :, n].any()


def test_nan_in_padding_reaches_no_frame_and_no_gradient():
    layer = jl.pyramid(BOTH)
    params = papers.drawn(layer, XS[0], KEY)
    padding = np.arange(7)[:, None, None] >= LENGTHS[:, None]
    loss = lambda xs: jnp.sin(layer.apply(params, xs, lengths=LENGTHS)[1]).sum()
    derived = jax.jit(jax.value_and_grad(loss))
    papers.close(derived(np.where(padding, np.nan, XS)), derived(XS), 1e-13)


def test_what_does_not_fit_raises():
    with pytest.raises(ValueError, match="bare: expected a Cell or a Layer, got 5"):
        jl.pyramid(5)
    with pytest.raises(ValueError, match="factor: expected a positive integer, got 0"):
        jl.pyramid(CELL, factor=0)
    layer = jl.pyramid(CELL)
    params = papers.drawn(layer, XS[0], KEY)
    for name in ("mask", "resets"):
        with pytest.raises(ValueError, match=f"{name}: expected None for a pyramid"):
            layer.apply(params, XS, **{name: np.ones((7, 3), bool)})
    with pytest.raises(ValueError, match=r"lengths: expected values in \[0, 7\]"):
        layer.apply(params, XS, lengths=[8, 0, 0])
