import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
XS = jnp.asarray(papers.normal(6, 3, 4))
LENGTHS = [6, 0, 2]
AHEAD, BACK = jl.elman(5), jl.gru(2)
BOTH = jl.bidirectional(AHEAD, BACK)
PARAMS = papers.drawn(BOTH, XS[0], KEY)


def test_outputs_are_both_directions_side_by_side():
    carry, ys = BOTH.apply(PARAMS, XS)
    ahead, hs = jl.scan(AHEAD, PARAMS.forward, XS)
    back, zs = jl.scan(BACK, PARAMS.backward, XS[::-1])
    assert ys.shape == (6, 3, 7)
    papers.close(carry, jl.BidirectionalCarry(ahead, back), 1e-14)
    papers.close((ys[..., :5], ys[..., 5:]), (hs, zs[::-1]), 1e-14)


def test_each_sequence_is_reversed_within_its_own_length():
    carry, ys = BOTH.apply(PARAMS, XS, lengths=LENGTHS)
    for n, length in enumerate(LENGTHS):
        alone, hs = BOTH.apply(PARAMS, XS[:length, n])
        papers.close(jax.tree.map(lambda a, n=n: a[n], carry), alone, 1e-14)
        np.testing.assert_allclose(ys[:length, n], hs, rtol=1e-12)
        assert not ys[length:, n].any()


def test_nan_in_padding_reaches_neither_direction_nor_a_gradient():
    padding = np.arange(6)[:, None] >= np.array(LENGTHS)
    xs = jnp.where(padding[..., None], jnp.nan, XS)
    loss = lambda params, xs: jnp.sin(BOTH.apply(params, xs, lengths=LENGTHS)[1]).sum()
    gradient = jax.jit(jax.grad(loss, (0, 1)))
    papers.close(gradient(PARAMS, xs), gradient(PARAMS, XS), 1e-14)
    assert not gradient(PARAMS, xs)[1][padding].any()


def test_mask_resets_and_implementation_are_for_both_directions():
    options = {"mask": XS[..., 0] > -1, "resets": XS[..., 1] > 1, "implementation": "reference"}
    carry, ys = BOTH.apply(PARAMS, XS, **options)
    ahead, hs = jl.scan(AHEAD, PARAMS.forward, XS, **options)
    back, zs = jl.scan(BACK, PARAMS.backward, XS, reverse=True, **options)
    expected = jl.BidirectionalCarry(ahead, back), jnp.concatenate([hs, zs], -1)
    papers.close((carry, ys), expected, 1e-14)
    with pytest.raises(ValueError, match="implementation: expected one of"):
        BOTH.apply(PARAMS, XS, implementation="cudnn")


def test_the_directions_draw_weights_and_masks_of_their_own():
    noisy = jl.variational_dropout(AHEAD, 0.5)
    both = jl.bidirectional(noisy, noisy)
    params = papers.drawn(both, XS[0], KEY)
    assert not np.allclose(params.forward.w_h, params.backward.w_h)
    carry, _ = both.apply(params, XS, key=jax.random.key(1))
    masks = [c.masks.value.inputs for c in carry]
    assert (masks[0] != masks[1]).any()


@pytest.mark.parametrize("other", [5, jl.lstm, BOTH])
def test_directions_that_are_no_cells_raise(other):
    with pytest.raises(ValueError, match="forward: expected a Cell, got"):
        jl.bidirectional(other, AHEAD)
    with pytest.raises(ValueError, match="backward: expected a Cell, got"):
        jl.bidirectional(AHEAD, other)


def test_first_carries_are_handed_to_both_directions():
    first, _ = BOTH.apply(PARAMS, XS)
    actual, _ = BOTH.apply(PARAMS, XS, first)
    ahead, _ = jl.scan(AHEAD, PARAMS.forward, XS, first.forward)
    back, _ = jl.scan(BACK, PARAMS.backward, XS[::-1], first.backward)
    papers.close(actual, jl.BidirectionalCarry(ahead, back), 1e-14)


def test_outputs_may_be_summed():
    both = jl.bidirectional(AHEAD, AHEAD, combine="sum")
    params = papers.drawn(both, XS[0], KEY)
    ahead, back = (
        jl.scan(AHEAD, params.forward, XS)[1],
        jl.scan(AHEAD, params.backward, XS[::-1])[1],
    )
    papers.close(both.apply(params, XS)[1], ahead + back[::-1], 1e-14)


def test_sums_and_options_that_are_none_raise():
    with pytest.raises(ValueError, match=r"backward: expected shape \(6, 3, 5\)"):
        jl.bidirectional(AHEAD, BACK, combine="sum").apply(PARAMS, XS)
    with pytest.raises(ValueError, match=r"combine: expected one of \['concatenate', 'sum'\]"):
        jl.bidirectional(AHEAD, BACK, combine="mean")
    for layer in (BOTH, jl.pyramid(BOTH), jl.stack(BOTH)):
        with pytest.raises(
            ValueError, match=r"options of a Layer: expected some of .* got reverse"
        ):
            layer.apply(papers.drawn(layer, XS[0], KEY), XS, reverse=True)
