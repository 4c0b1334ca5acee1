"""The gated recurrence in plain JAX, by blocks of time whose products stay in cache.

Three sweeps: forward, the forward sweep's tangent, and the tangent's transpose. A block is some
256 to 1024 rows of (time, batch), over which the input product, what is computed again for the
gradient, and the weight gradients are one matrix product each; only the recurrent product is
done step by step. The gradient needs the carries, and z and u where `jaxlstm.kernels.residual`
has them kept.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlstm.base import is_symbolic, restart, select, vary_alike
from jaxlstm.blocks import block_length, in_blocks
from jaxlstm.kernels import residual
from jaxlstm.kernels.linear import reassociated
from jaxlstm.kernels.products import of_blocks
from jaxlstm.kernels.ragged import in_ragged_blocks, where_busy
from jaxlstm.kernels.reading import closes_over_traced, only_the_sum
from jaxlstm.kernels.recurrence import (
    Inputs,
    Kept,
    Update,
    Weights,
    accumulator,
    advance,
    cast,
    emit,
    inner,
    project,
    with_derivative,
)

WIDTHS = 2**19  # of a block: rows times G H, so that z = x W + b is 2 MB, in L2 cache
ROWS = 512, 1024  # but about as many at least and at most, if little is kept
FEW, NARROW = 2**23, 1024  # where more bytes are kept of at most so many G H, half the rows
LARGE = 2**22  # multiplications of a step from which on a loop of four steps is faster than of one

RESIDUAL = residual.Residual(0, 0)


def supports(update: Update, inputs: Inputs) -> str | None:
    """Any sequence will do of which nothing is split over explicit mesh axes."""
    if isinstance(inputs.x, jax.ShapeDtypeStruct):
        return None
    axes = (axis for a in jax.tree.leaves(inputs) for axis in jax.typeof(a).sharding.spec)
    if any(axis is not None for axis in axes):
        return "an array is split over a mesh axis of type Explicit; Auto, or shard_map, is served"
    if inputs.carry is None:  # it is only asked
        return None
    read = jax.tree.leaves((inputs.weights.theta, inputs.carry))
    if not all(jnp.issubdtype(jnp.result_type(a), jnp.floating) for a in read):
        return "theta or the carry has numbers that are not floating-point"
    if closes_over_traced(update, inputs):
        return "update reads a traced value that is not in theta"
    return None


def block_rows(weights: Weights, kept: int = 0) -> int:
    """Rows of a block, where so many bytes of all steps are kept."""
    least, most = ROWS
    parts = 2 if kept > FEW and weights.b.size <= NARROW else 1
    return max(least, min(most, WIDTHS // weights.b.size)) // parts


def forward(update: Update, keep: bool, inputs: Inputs) -> tuple[Any, Any]:
    """The last carry, and h after every step, or with `keep` a `Kept`."""
    weights, x, carry, initial, valid, resets = inputs
    kept_bytes = residual.kept_bytes(update, inputs) if keep else 0
    unknown = any(map(is_symbolic, x.shape))
    products = of_blocks(update, inputs)
    unroll = 1 if unknown or x.shape[1] * weights.w_h.size < LARGE else 4

    def block(state, _, s, of_rows):
        x, valid, resets = s
        first = of_rows(initial)

        def step(carry, s):
            now, valid, reset = s
            carry = restart(reset, first, carry)
            z, u, known = of_step(now, carry.h)
            carry = advance(update, weights, carry, z, u, valid)
            return carry, (emit(carry, keep), known if kept_bytes else None)

        times, of_step, residual_of = products(x)
        carry, (ys, known) = lax.scan(step, state[0], (times, valid, resets), unroll=unroll)
        return (carry, None), (ys, None if known is None else residual_of(known))

    length = block_length(x.shape[0], x.shape[1], block_rows(weights, kept_bytes))
    steps, busy = (x, valid, resets), where_busy(valid, resets)
    (last, _), (ys, kept) = in_ragged_blocks(block, carry, None, steps, busy, length)
    if not keep:
        return last, ys
    return last, Kept(ys, residual.whole(inputs, kept))


def edge(inputs: Inputs, carries: Any, start: Any) -> Any:
    """The carry before the step `start`, of the carries after each."""
    before = lambda c, cs: jnp.where(start == 0, c, cs[jnp.maximum(start - 1, 0)])
    return jax.tree.map(before, inputs.carry, carries)


def steps_again(
    inputs: Inputs, begin: tuple[Any, Any, Any], steps: tuple[Any, ...], kept: Any = None
) -> tuple[Any, Array, Array]:
    """The carries that a block's steps saw, and their z and u, as kept or computed again.

    Args:
      inputs: those of `forward`.
      begin: the carry before the block, that of resets, and that before all steps.
      steps: the block's x, valid, resets, and the carries after each.
      kept: their `Residual`, if there is one.
    """
    edge, initial, first = begin
    x, valid, resets, after = steps
    before = jax.tree.map(lambda e, a: jnp.concatenate([e[None], a[:-1]]), edge, after)
    before = restart(resets, initial, before)
    before = select(valid, before, first)  # what was left out has zeros after each step
    if kept is not None:
        return before, kept.z, jnp.zeros_like(kept.z) if kept.u is None else kept.u
    weights = inputs.weights
    return before, project(x, weights.w_x) + weights.b, project(before.h, weights.w_h)


def tangent(update: Update, keep: bool, inputs: Inputs, kept: Kept, d: Inputs) -> Any:
    """The derivative along `d`, of which a part that is None is zero, of the last carry and h,
    or with `keep` of the carries."""
    carries = kept.carries
    weights, x, _, _, valid, resets = inputs
    d_inner = filled(inner(d.weights), inner(weights))
    d_initial = filled(d.initial, inputs.initial)

    def block(d_carry, start, s):
        x, d_x, valid, resets, after = s
        begin = edge(inputs, carries, start), inputs.initial, inputs.carry
        before, z, u = steps_again(inputs, begin, (x, valid, resets, after))
        parts = [
            d.weights.b,
            None if d_x is None else project(d_x, weights.w_x),
            None if d.weights.w_x is None else project(x, d.weights.w_x),
        ]
        d_z = sum((p.astype(z.dtype) for p in parts if p is not None), jnp.zeros_like(z))
        d_u = jnp.zeros_like(u) if d.weights.w_h is None else project(before.h, d.weights.w_h)

        def step(d_carry, s):
            before, z, u, d_z, d_u, valid, reset = s
            d_carry = restart(reset, d_initial, d_carry)
            _, d_carry = jax.jvp(
                lambda *a: advance(update, *a, valid),
                (inner(weights), before, z, u),
                (d_inner, d_carry, d_z, d_u + project(d_carry.h, weights.w_h)),
            )
            return d_carry, emit(d_carry, keep)

        return lax.scan(step, d_carry, (before, z, u, d_z, d_u, valid, resets))

    steps = (x, d.x, valid, resets, carries)
    length = block_length(x.shape[0], x.shape[1], block_rows(weights))
    d_carry, _ = vary_alike((filled(d.carry, inputs.carry), x))
    return in_blocks(block, d_carry, steps, length)


def backward(
    update: Update, keep: bool, inputs: Inputs, kept: Kept, wanted: Inputs, g_last: Any, g_ys: Any
) -> Inputs:
    """The transpose of `tangent`.

    Args:
      update: the recurrence.
      keep: whether `g_ys` is for whole carries or for h alone.
      inputs: those of `forward`.
      kept: by `forward`.
      wanted: like `inputs`; a part that is None gets no cotangent.
      g_last: cotangent of the last carry, leaves (B, ...).
      g_ys: cotangent of the stacked carries or h, leaves (T, B, ...).

    Returns:
      The cotangents of `inputs`, None where none is wanted.
    """

    def again(inputs, kept, g_last, g_ys):
        return _backward(update, keep, inputs, Kept(kept.carries, None), wanted, g_last, g_ys)

    def faster(inputs, kept, g_last, g_ys):
        return _backward(update, keep, inputs, kept, wanted, g_last, g_ys)

    # What is kept is of no use to a derivative, to which it would be a constant.
    run = with_derivative(faster, again) if residual.steps(kept.residual) else again
    return run(inputs, kept, g_last, g_ys)


def _backward(update, keep, inputs, kept, wanted, g_last, g_ys):
    weights, x, _, _, valid, resets = inputs
    carries = kept.carries
    w_x, w_h = (w.reshape(w.shape[0], -1) for w in (weights.w_x, weights.w_h))
    w_back = lax.optimization_barrier(w_h.T)  # laid out once, not read backwards at each step
    of_inner = inner(weights)
    wanted_inner = bool(jax.tree.leaves(inner(wanted.weights)))
    p_back = None if weights.projection is None else weights.projection.T
    summed = only_the_sum(update, inputs)

    def elementwise(carry, z, *u):
        new = update(weights.theta, carry, z, *(u or (zeros_like(z),)))
        # The h of a projection has another shape than the carry's, and keeps its own dtype.
        return cast(new, carry if p_back is None else carry._replace(h=new.h))

    def through(g, valid, pull, like):
        """The cotangents of a step's carry, of z, and of u if that is another."""
        new = select(valid, g, zeros_like(g))
        if p_back is not None:
            new = new._replace(h=project(new.h, p_back))
        g_before, g_z, *g_u = pull(cast(new, like))
        if valid is not None:
            g_before = jax.tree.map(jnp.add, g_before, select(valid, zeros_like(g), g))
        return g_before, g_z, g_u[0] if g_u else None

    def block(state, start, t, of_rows):
        (g, g_initial), sums = state
        x, valid, resets, after, known, g_ys = t
        begin = of_rows((edge(inputs, carries, start), inputs.initial, inputs.carry))
        before, z, u = steps_again(inputs, begin, (x, valid, resets, after), known)
        read = (z + u,) if summed else (z, u)
        pulls = jax.vmap(lambda *a: jax.vjp(elementwise, *a)[1])(before, *read)
        like = jax.eval_shape(elementwise, *jax.tree.map(lambda a: a[0], (before, *read)))
        reads, pull = reassociated(pulls, zeros_like(like)) or (pulls, lambda pull, g: pull(g))

        def step(s, t):
            g, g_initial = s
            of_pull, valid, reset, g_y = t
            g = jax.tree.map(jnp.add, g, g_y) if keep else g._replace(h=g.h + g_y)
            g_before, g_z, g_u = through(g, valid, partial(pull, of_pull), like)
            of_h = (g_z if g_u is None else g_u).reshape(g_z.shape[0], len(w_back)) @ w_back
            g_before = g_before._replace(h=g_before.h + of_h.astype(g_before.h.dtype))
            if reset is not None:
                g_initial = added(g_initial, lambda: select(reset, g_before, zeros_like(g_before)))
                g_before = select(reset, zeros_like(g_before), g_before)
            return (g_before, g_initial), (g_z, g_u, g if wanted_inner else None)

        (g, g_initial), (g_z, g_u, totals) = lax.scan(
            step, (g, g_initial), (reads, valid, resets, g_ys), reverse=True
        )
        g_u = g_z if g_u is None else g_u
        products = Weights(
            w_x=lambda: outer(x, g_z), w_h=lambda: outer(before.h, g_u), b=lambda: g_z.sum((0, 1))
        )
        steps = lambda w: jax.vmap(partial(advance, update, w))(before, z, u, valid)
        g_inner = jax.vjp(steps, of_inner)[1](totals)[0] if wanted_inner else of_inner
        new = products._replace(theta=lambda: g_inner.theta, projection=lambda: g_inner.projection)
        sums = Weights(*map(added, sums, new))
        flat = g_z.reshape(x.shape[0] * x.shape[1], w_x.shape[1])
        g_x = None if wanted.x is None else (flat @ w_x.T).astype(x.dtype).reshape(x.shape)
        return ((g, g_initial), sums), g_x

    zeros = lambda tree: jax.tree.map(lambda w: jnp.zeros(w.shape, accumulator(w.dtype)), tree)
    state = (g_last, zeros(wanted.initial)), zeros(wanted.weights)
    state, _ = vary_alike((state, x))
    known = residual.steps(kept.residual)
    steps = (x, valid, resets, carries, known, g_ys)
    rows = block_rows(weights, residual.kept_bytes(update, inputs) if known else 0)
    length = block_length(x.shape[0], x.shape[1], rows)
    ((g, g_initial), sums), g_x = in_ragged_blocks(
        block, *state, steps, where_busy(valid, resets), length, reverse=True
    )
    full = Inputs(sums, g_x, g, g_initial, None, None)
    of = lambda w, g: None if w is None else g.astype(w.dtype)
    return jax.tree.map(of, wanted, full, is_leaf=lambda a: a is None)


def zeros_like(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)


def filled(d: Any, like: Any) -> Any:
    """`d`, with zeros for the parts that are None there and not in `like`."""
    if d is None:
        return zeros_like(like)
    zeros = lambda d, a: zeros_like(a) if d is None else d
    return jax.tree.map(zeros, d, like, is_leaf=lambda a: a is None)


def added(total: Any, value: Callable) -> Any:
    """`total + value()`, of which a part that is None in `total` stays None."""
    if not jax.tree.leaves(total):
        return total
    plus = lambda t, v: None if t is None else t + v.astype(t.dtype)
    return jax.tree.map(plus, total, value(), is_leaf=lambda a: a is None)


def outer(a: Array, g: Array) -> Array:
    """The sum over time and batch of a (T, B, D) times g (T, B, *G, H): (D, *G, H)."""
    rows = a.shape[0] * a.shape[1]
    product = a.reshape(rows, a.shape[-1]).T @ g.reshape(rows, math.prod(g.shape[2:]))
    return product.reshape(a.shape[-1], *g.shape[2:])
