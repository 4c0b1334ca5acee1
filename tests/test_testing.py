"""The laws notice a cell that breaks them."""

import jax
import jax.numpy as jnp
import pytest

import jaxlstm as jl
from jaxlstm import testing
from tests import papers

KEY = jax.random.key(0)
STEP = jax.ShapeDtypeStruct((3, 4), jnp.float64)
PARAMS = papers.drawn(jl.elman(2), STEP, KEY)
SOUND = jl.elman(2)._replace(init=lambda key, x: PARAMS)


def broken(**changes):
    """A cell whose unroll gets other arguments than it is given."""

    def unroll(params, carry, xs, **options):
        given = dict(params=params, carry=carry, xs=xs) | options
        return SOUND.unroll(**given | {name: change(given) for name, change in changes.items()})

    unroll.explain = SOUND.unroll.explain
    return SOUND._replace(unroll=unroll)


@pytest.mark.parametrize(
    ("law", "changes"),
    [
        (testing.check_scan, {"carry": lambda given: jl.ElmanCarry(0 * given["carry"].h)}),
        (testing.check_scan, {"params": lambda given: jax.lax.stop_gradient(given["params"])}),
        (testing.check_implementations, {"xs": lambda given: given["xs"] * (1 + 1e-8)}),
        (testing.check_options, {"valid": lambda given: None}),
        (testing.check_options, {"resets": lambda given: None}),
        (testing.check_vmap, {"carry": lambda given: jax.tree.map(jnp.flipud, given["carry"])}),
        (testing.check_derivatives, {"xs": lambda given: jax.lax.stop_gradient(given["xs"])}),
    ],
)
def test_a_broken_unroll_is_noticed(law, changes):
    with pytest.raises(AssertionError, match=r"elman\(2\)"):
        law(broken(**changes), KEY, STEP)


def test_a_step_that_multiplies_padding_away_is_noticed():
    def unroll(params, carry, xs, *, valid, **options):
        padded = jnp.where(valid[..., None], xs, jnp.inf)  # what `scan` had taken out
        return SOUND.unroll(params, carry, padded * valid[..., None], valid=valid, **options)

    unroll.explain = SOUND.unroll.explain
    with pytest.raises(AssertionError, match="NaN in padding"):
        testing.check_padding(SOUND._replace(unroll=unroll), KEY, STEP)


def test_every_law_is_in_check_cell():
    named = {law for name, law in vars(testing).items() if name.startswith("check_")}
    assert named - {testing.check_cell} == set(testing.LAWS)


@pytest.mark.parametrize("x", [((3, 4), "float32"), ((4,), "float64")])
def test_steps_to_draw_like_are_batched_and_in_double_precision(x):
    with pytest.raises(ValueError, match=r"x: expected \(B, D\) in float64, got shape"):
        testing.check_cell(SOUND, KEY, jax.ShapeDtypeStruct(*x))
