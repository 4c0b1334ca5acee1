"""Gated cells of one's own, by `jaxlstm.gated`: whatever their update reads, as the plain scan."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxlstm as jl
from jaxlstm.gated import GatedUnroll, Weights, gated_step
from jaxlstm.gates import gates
from tests import papers

KEY = jax.random.key(0)
T, B, D, G, H = 5, 2, 3, 2, 4


class Carry(NamedTuple):
    h: Any


def cell(update, theta=lambda params: params, projection=None, dtype=jnp.float64):
    """Of fixed weights; its params are the theta of `update`, or in it."""
    units = projection or H
    draw = lambda n, *shape: jax.random.normal(jax.random.key(n), shape, dtype)
    weights = Weights(draw(1, D, G, H), draw(2, units, G, H), draw(3, G, H))
    if projection:
        weights = weights._replace(projection=draw(4, H, projection))
    split = lambda params: weights._replace(theta=theta(params))
    return jl.Cell(
        lambda key, x: jnp.ones(()),
        lambda params, x, key=None: Carry(jnp.zeros((*x.shape[:-1], units), x.dtype)),
        lambda params, carry, x: gated_step(update, split(params), carry, x),
        GatedUnroll(update, split),
        "own",
    )


def total(cell, implementation, param, dtype=jnp.float64):
    xs = papers.normal(T, B, D).astype(dtype)
    ys = jl.scan(cell, param, xs, implementation=implementation)[1]
    return jnp.sin(ys.astype(jnp.float64)).sum()


def by_first_axis(theta, carry, z, u):
    """Written for (B, G, H), and no axis before."""
    return Carry(jnp.tanh(z + u * theta)[:, 0] * carry.h + z[:, 1])


def never(theta, carry, z, u):
    a, b = gates(z + u)
    return Carry(jnp.where(False, 0.9 * carry.h + a, jnp.tanh(theta * a) * b))


def scaled(theta, carry, z, u):
    a, b = gates(z + u)
    return Carry(jnp.tanh(theta * a) * b)


def counted(theta, carry, z, u):
    count, scale = theta
    return Carry(jnp.tanh(jnp.where(count > 1, scale, 1.0) * gates(z + u)[0]))


CASES = {
    "the first axis is the batch": cell(by_first_axis),
    "a choice that is never made": cell(never),
    "integers in theta": cell(counted, lambda scale: (jnp.arange(H), scale)),
    "a projection": cell(scaled, projection=3),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_and_tangents_are_those_of_the_plain_scan(name):
    def both(implementation):
        of = lambda param: total(CASES[name], implementation, param)
        _, tangent = jax.jvp(of, (0.7,), (1.0,))
        return tangent, jax.jit(jax.value_and_grad(of))(0.7), jax.jit(jax.hessian(of))(0.7)

    papers.close(both(None), both("reference"), 1e-12)


def test_a_projection_of_h_in_half_precision():
    half = lambda theta, carry, z, u: Carry(jnp.tanh(theta * gates(z + u)[0]).astype(carry.h.dtype))
    made = cell(half, projection=3, dtype=jnp.bfloat16)
    of = lambda name: jax.grad(lambda p: total(made, name, p, jnp.bfloat16))(jnp.float32(0.7))
    papers.close(of(None), of("reference"), 0.05)


def test_a_traced_value_that_update_closes_over_has_its_gradient():
    def of(name):
        def loss(w):
            update = lambda theta, carry, z, u: Carry(jnp.tanh(w * gates(z + u)[0]))
            return total(cell(update), name, 1.0)

        return loss

    for gradient in (jax.grad, lambda f: jax.jit(jax.grad(f))):
        papers.close(gradient(of(None))(0.7), gradient(of("reference"))(0.7), 1e-12)
    with pytest.raises(ValueError, match="can't serve: update reads a traced value"):
        jax.grad(of("blocked"))(0.7)


def test_a_carry_that_is_split_over_an_explicit_mesh():
    gru, xs = jl.gru(4), papers.normal(T, B, D)
    params = papers.drawn(gru, xs[0], KEY)
    start = gru.initial_carry(params, xs[0])
    of = lambda start: jax.grad(lambda p: jl.scan(gru, p, xs, start)[1].sum())(params)
    expected = of(start)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        put = lambda a: jax.device_put(a, NamedSharding(mesh, P("d")))
        found = jax.jit(of)(jax.tree.map(put, start))
    papers.close(jax.tree.map(np.asarray, found), expected, 1e-12)


def test_vmap_over_none():
    gru, xs = jl.gru(4), jnp.zeros((0, T, B, D))
    params = papers.drawn(gru, xs[:1, 0, 0], KEY)
    assert jax.vmap(lambda xs: jl.scan(gru, params, xs)[1])(xs).shape == (0, T, B, 4)
