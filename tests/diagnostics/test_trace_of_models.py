"""Traces of stacks, directions and wrappers: each cell in them as if it stood alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.diagnostics import trace
from tests import papers
from tests.diagnostics import KEY, SAME, B, H, T, alike, case


@pytest.mark.long
def test_each_layer_of_a_stack_is_itself():
    cells = jl.lstm(H, peephole=True), jl.residual(jl.gru(H)), jl.skip(jl.janet(3)), jl.elman(4)
    deep = jl.stack(*cells)
    params, xs, carry = case(deep)
    seen = trace(deep, params, xs, carry)
    assert sorted(seen.gates) == ["0.f", "0.i", "0.o", "1.r", "1.z", "2.f", "2.i"]
    ys = xs
    for n, cell in enumerate(cells):
        alone = trace(cell, params[n], ys, carry[n])
        alike(seen, alone, f"{n}.")
        ys = alone.ys
    np.testing.assert_allclose(seen.ys, ys, **SAME)


def test_directions_and_lengths():
    both = jl.bidirectional(jl.lstm(H), jl.gru(H))
    deep = jl.stack(both, jl.residual(both), jl.backward(jl.lstm(2)), jl.pyramid(jl.gru(2)))
    params, xs, _ = case(both)
    params = papers.drawn(deep, xs[0], KEY)
    lengths = jnp.array([6, 4, 0])
    seen = trace(deep, params, xs, lengths=lengths)
    carry, ys = deep.apply(params, xs, lengths=lengths)
    np.testing.assert_allclose(seen.ys, ys, **SAME)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **SAME), seen.carry, carry)
    # Each sequence by itself, reversed by NumPy.
    for b, length in enumerate(lengths[:2]):
        x = xs[: int(length), b]
        alike(
            jax.tree.map(lambda a, b=b, n=int(length): a[:n, b], seen._replace(carry=(), ys=())),
            trace(jl.lstm(H), params[0].forward, x),
            "0.forward.",
        )
        back = trace(jl.gru(H), params[0].backward, x[::-1])
        for kind in ("gates", "candidates", "states"):
            for name, value in getattr(back, kind).items():
                actual = getattr(seen, kind)[f"0.backward.{name}"][: int(length), b]
                np.testing.assert_allclose(actual, value[::-1], **SAME)
    np.testing.assert_array_equal(seen.valid["1.backward.n"].sum(0), lengths)
    np.testing.assert_array_equal(seen.valid["3.z"].sum(0), [3, 2, 0])
    assert seen.gates["3.z"].shape == (3, B, 2)
    assert not seen.gates["2.f"][4:, 1].any()


def test_mask_and_resets():
    cell = jl.lstm(H)
    params, xs, carry = case(cell)
    mask = jnp.ones((T, B), bool).at[2, 1].set(False)
    resets = jnp.zeros((T, B), bool).at[4].set(True)
    seen = trace(cell, params, xs, carry, mask=mask, resets=resets)
    np.testing.assert_array_equal(seen.valid["f"], mask)
    assert not seen.gates["f"][2, 1].any()
    later = trace(cell, params, xs[4:])
    alike(jax.tree.map(lambda a: a[4:], seen._replace(carry=(), ys=())), later, "")
    np.testing.assert_allclose(
        seen.ys, jl.scan(cell, params, xs, carry, mask=mask, resets=resets)[1], **SAME
    )


def test_wrappers_show_what_they_do():
    bare = jl.lstm(H)
    params, xs, _ = case(bare)
    key = jax.random.key(5)
    noisy = jl.zoneout(bare, c=0.5, h=0.5)
    seen = trace(noisy, params, xs, key=key)
    np.testing.assert_allclose(seen.ys, jl.scan(noisy, params, xs, key=key)[1], **SAME)
    kept = seen.states["c"][1:] == seen.states["c"][:-1]
    assert 0.3 < kept.mean() < 0.7
    made = seen.gates["f"][1:] * seen.states["c"][:-1]
    made += seen.gates["i"][1:] * seen.candidates["g"][1:]
    np.testing.assert_allclose(np.where(kept, made, seen.states["c"][1:]), made, **SAME)
    for wrapped in (jl.variational_dropout(bare, 0.3), jl.recurrent_dropout(bare, 0.3)):
        seen = trace(wrapped, params, xs, key=key)
        assert (sorted(seen.states), sorted(seen.gates)) == (["c", "h"], ["f", "i", "o"])
        np.testing.assert_allclose(seen.ys, jl.scan(wrapped, params, xs, key=key)[1], **SAME)


def test_maps_of_attention():
    cell = jl.attention(jl.lstm(H), "additive", memory=2, size=3)
    params, xs, _ = case(cell)
    memory = jnp.asarray(papers.normal(7, B, 2))
    start = jl.attend(cell, params, xs[0], memory, lengths=jnp.array([7, 2, 5]))
    seen = trace(cell, params, xs, start)
    assert sorted(seen.states) == ["c", "h"]
    np.testing.assert_allclose(seen.ys.weights.sum(-1), np.ones((T, B)), **SAME)
    np.testing.assert_array_equal((seen.ys.weights > 0).sum(-1)[0], [7, 2, 5])
