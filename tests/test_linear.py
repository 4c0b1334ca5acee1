"""What an update passes back, its factors multiplied beforehand, beside its vjp."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxlstm as jl
from jaxlstm.gates import gates, tanh
from jaxlstm.kernels import linear
from tests import papers

T, B, G, H = 3, 2, 4, 5
TOLERANCE = 1e-14  # float64, products of a few factors in another order


def both(update, cotangents=None, seed=0):
    """`update(c, z) -> outputs`: of each step, what is read and passed back, and the vjp's own."""
    c, z = papers.normal(T, B, H), papers.normal(T, B, G, H)
    pulls = jax.vmap(lambda *a: jax.vjp(update, *a)[1])(c, z)
    if cotangents is None:
        one = jax.eval_shape(update, c[0], z[0])
        cotangents = jax.tree.map(lambda a: papers.normal(*a.shape), one)
    found = linear.reassociated(pulls, cotangents)
    at = lambda tree, t: jax.tree.map(lambda a: a[t], tree)
    expected = [at(pulls, t)(cotangents) for t in range(T)]
    if found is None:
        return None, expected, None
    reads, pull = found
    return [pull(at(reads, t), cotangents) for t in range(T)], expected, reads


def lstm(c, z):
    i, f, g, o = gates(tanh(z))
    c = f * c + i * g
    return c, o * tanh(c)


def split_again(c, z):
    """Gates that are put together, and taken apart for one of them to be used once more."""
    i, f, g, o = gates(tanh(jnp.stack([c * a for a in gates(z)], 1)))
    return i * f - g * o, i


def unused(c, z):
    return c * c, jnp.sin(gates(z)[2])


def chosen(c, z):
    """1 / r is infinite where it is not chosen."""
    r = jnp.where(c > 0, c, 0.0)
    i, f, g, _ = gates(z)
    return jnp.where(c > 0, f / jnp.where(c > 0, r, 1.0), i), c * g


def largest(c, z):
    i, f, *_ = gates(z)
    return jnp.maximum(c, f), -i / 3


@pytest.mark.parametrize(
    ("update", "numbers"),  # that the loop reads of a unit
    [(lstm, 6), (split_again, 7), (unused, 5), (chosen, 6), (largest, 5)],
)
def test_gives_what_the_vjp_gives(update, numbers):
    actual, expected, reads = both(update)
    papers.close(actual, expected, TOLERANCE)
    assert sum(a.size for a in jax.tree.leaves(reads)) == numbers * T * B * H


@pytest.mark.parametrize(
    "update",
    [
        lambda c, z: (c + z.sum(1), z[:, 0]),  # a sum over gates
        lambda c, z: (jnp.cumsum(c, -1) * z[:, 0], c),  # over units
        lambda c, z: (jnp.tanh(c[:, ::-1] * z[:, 0]), c),
        lambda c, z: (c * c, (z.reshape(B, -1) * z.reshape(B, -1))[:, :H]),
    ],
)
def test_what_is_more_than_products_is_left_to_the_vjp(update):
    assert both(update)[0] is None


@pytest.mark.parametrize(
    "back",  # of a derivative of one's own, (number, cotangent) -> cotangent
    [
        lambda r, g: jnp.ones_like(g),  # as an auxiliary loss adds
        lambda r, g: g + r,
        lambda r, g: g * g,
        lambda r, g: r / g,
        lambda r, g: jnp.where(r > 0, g, r),
        lambda r, g: g * jax.nn.relu(r),  # a call
    ],
)
def test_a_derivative_that_is_not_linear_is_left_alone(back):
    own = jax.custom_vjp(lambda a: a * a)
    own.defvjp(lambda a: (own(a), a), lambda r, g: (back(r, g),))
    assert both(lambda c, z: (own(c), gates(z)[0] * c))[0] is None


def test_cotangents_of_other_than_batch_and_units_are_left_to_the_vjp():
    assert both(lambda c, z: (c[:, None] * z, c))[0] is None


def test_an_update_without_numbers_of_its_own_is_left_to_the_vjp():
    assert both(lambda c, z: (c + z[:, 0], -c))[0] is None


def test_under_shard_map_zeros_are_the_carry_of_a_loop_as_well():
    """What passes back to a carry that is not read varies over devices like all else."""
    if jax.device_count() < 2:
        pytest.skip("needs two devices, and jax_num_cpu_devices came too late for them")

    def update(c, z):
        i, f, g, o = gates(z)
        return jnp.sin(i) * f, jnp.cos(g * o)

    def shard(c, z, g):
        pulls = jax.vmap(lambda *a: jax.vjp(update, *a)[1])(c, z)
        reads, pull = linear.reassociated(pulls, (g, g))
        through = lambda g, read: pull(read, (g, g))
        return jax.lax.scan(through, g, reads)

    c, z, g = papers.normal(T, B, H), papers.normal(T, B, G, H), papers.normal(B, H)
    split = P(None, "data"), P(None, "data"), P("data")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    run = jax.shard_map(shard, mesh=mesh, in_specs=split, out_specs=(P("data"), P(None, "data")))
    papers.close(jax.jit(run)(c, z, g), shard(c, z, g), TOLERANCE)


@pytest.mark.parametrize("cell", ["lstm", "gru", "janet", "slstm"])
def test_it_is_taken_by(cell, monkeypatch):
    found, of = [], linear.reassociated
    spy = lambda *a: found.append(of(*a)) or found[-1]
    monkeypatch.setattr("jaxlstm.kernels.blocked.reassociated", spy)
    cell, xs = getattr(jl, cell)(7), papers.normal(4, 3, 2)  # as in no other test
    params = papers.drawn(cell, xs[0], jax.random.key(0))
    total = lambda params: jl.scan(cell, params, xs, implementation="blocked")[1].sum()
    assert np.isfinite(jax.tree.leaves(jax.grad(total)(params))[0]).all()
    assert found
    assert None not in found
