"""The gated recurrence and its differentiation rule.

Nearly every gated cell is an input part that does not need the carry, one recurrent matrix
product a step, and an elementwise update:

    z_t = x_t W + b                     all t at once
    u_t = h_{t-1} U                     step by step
    carry_t = update(theta, carry_{t-1}, z_t, u_t), its h times P if there is a projection

A family of cells gives `update` and a `split` of its params into `Weights`; it gets its step,
its `Unroll`, every implementation in `jaxlstm.kernels`, and one differentiation rule. The
rule is a pair of primitives. `sweep_p` runs the recurrence; its derivative is `tangent_p`,
linear in all tangents at once. The transpose of `tangent_p` is an implementation's backward
sweep, with the weight gradients as products over blocks of time; its derivative is that of
the plain tangent sweep, which gives second order; and the batching rule of both folds a
mapped axis into the batch, so that `vmap` costs what the batch would.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxlstm import kernels
from jaxlstm.base import Array, Carry, Params, is_symbolic
from jaxlstm.checks import check, check_features, check_shape, describe
from jaxlstm.kernels import blocked
from jaxlstm.kernels.recurrence import (
    Inputs,
    Kept,
    Update,
    Weights,
    accumulator,
    advance,
    emit,
    project,
)

BATCH_AXES = (None, 1, 0, 0, 1, 1)  # of the leaves of each part of Inputs


def gated_step(
    update: Update, weights: Weights, carry: Carry, x: Array, mask: Array | None = None
) -> tuple[Carry, Array]:
    """One step of the recurrence: its definition.

    Args:
      update: `(theta, carry, z, u) -> carry`; z and u are (*B, *G, H).
      weights: W (D, *G, H), U (R, *G, H), b (*G, H), theta, and P (H, R) or None.
      carry: a NamedTuple with a field h, (*B, R).
      x: (*B, D).
      mask: (*B, R) multiplies h in the recurrent product, for `variational_dropout`.

    Returns:
      The carry after the step, in the dtypes of the carry before; and its h.

    Raises:
      ValueError: if x or the carry does not fit the weights.
    """
    _check(weights, carry, x, "x")
    z = project(x, weights.w_x) + weights.b
    h = carry.h if mask is None else carry.h * mask
    carry = advance(update, weights, carry, z, project(h, weights.w_h))
    return carry, carry.h


def state_dtypes(params: Params, x: Any) -> tuple[Any, Any]:
    """The dtypes of h and of a cell state: that of params and x together, and at least float32."""
    dtype = jnp.result_type(x.dtype, *(a.dtype for a in jax.tree.leaves(params)))
    return dtype, accumulator(dtype)


def _check(weights, carry, x, argument):
    check_features(x, weights.w_x.shape[0], argument, "params.w_x")
    check(
        hasattr(carry, "h"),
        "carry",
        "a NamedTuple with a field h, one of this cell",
        describe(carry),
    )
    hidden = weights.w_h.shape[0]
    batch = x.shape[1:-1] if argument == "xs" else x.shape[:-1]
    check_shape(carry.h, (*batch, hidden), "carry.h", f"as {argument} and params.w_h have it")
    for name, state in carry._asdict().items():
        if name != "h" and state is not None:
            fits = state.shape[: len(batch)] == batch and state.shape[-1] == weights.b.shape[-1]
            expected = f"batch axes {batch} and a last one of {weights.b.shape[-1]}"
            check(fits, f"carry.{name}", expected, describe(state))


class GatedUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` of a gated recurrence."""

    update: Update
    split: Callable[[Params], Weights]

    def __call__(self, params, carry, xs, *, valid, resets, initial, implementation):
        weights = self.split(params)
        _check(weights, carry, xs, "xs")
        batch = xs.shape[1:-1]
        n = len(batch)
        size = math.prod(batch)
        steps = lambda a: a.reshape(a.shape[0], size, *a.shape[1 + n :])
        flat = lambda c: jax.tree.map(lambda a: a.reshape(size, *a.shape[n:]), c)

        def flags(a):
            if a is None:
                return None
            a = a.reshape(a.shape + (1,) * (1 + n - a.ndim))
            return steps(jnp.broadcast_to(a, (a.shape[0], *batch)))

        inputs = Inputs(weights, steps(xs), flat(carry), flat(initial), flags(valid), flags(resets))
        name = kernels.choose(implementation, self.update, inputs)
        if name is None:
            return None
        last, ys = sweep(self.update, name, inputs)
        last = jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), last)
        return last, ys.reshape(ys.shape[0], *batch, *ys.shape[2:])

    def explain(self, params, xs):
        inputs = Inputs(self.split(params), xs, None, None, None, None)
        return kernels.answers(self.update, inputs)


def sweep(update: Update, implementation: str, inputs: Inputs) -> tuple[Carry, Array]:
    """The last carry and all h (T, B, R) of the recurrence; differentiable in every way."""
    last, ys = _bind(sweep_p, inputs, update=update, implementation=implementation, keep=False)
    return last, ys


def _bind(primitive, *trees, **static):
    leaves, tree = jax.tree.flatten(trees)
    out_tree = _out_tree(primitive, trees[0].carry, static["keep"], static["implementation"])
    return jax.tree.unflatten(out_tree, primitive.bind(*leaves, tree=tree, **static))


def _out_tree(primitive, carry, keep, implementation):
    if primitive is sweep_p and keep:
        residual = kernels.IMPLEMENTATIONS[implementation].RESIDUAL
        return jax.tree.structure((carry, Kept(carry, residual)))
    return jax.tree.structure((carry, emit(carry, keep)))


def _run_sweep(*leaves, tree, update, implementation, keep):
    (inputs,) = tree.unflatten(leaves)
    return jax.tree.leaves(kernels.IMPLEMENTATIONS[implementation].forward(update, keep, inputs))


def _run_tangent(*leaves, tree, update, implementation, keep):
    return jax.tree.leaves(blocked.tangent(update, keep, *tree.unflatten(leaves)))


def _primitive(name, run, types):
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(lambda *leaves, **static: run(*leaves, **static))
    primitive.def_abstract_eval(types)
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True))
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive, run)
    return primitive


def _sweep_types(*avals, **static):
    # The plain sweep is traced for its types, which carry more than shapes (shardings, ...).
    return _traced_types(avals, tuple(static.items()))


@functools.lru_cache(maxsize=256)
def _traced_types(avals, static):
    return jax.make_jaxpr(functools.partial(_run_sweep, **dict(static)))(*avals).out_avals


def _tangent_types(*avals, tree, keep, **static):
    inputs, kept, _ = tree.unflatten(avals)
    out = jax.tree.leaves((inputs.carry, emit(kept.carries, keep)))
    return [a.to_tangent_aval() for a in out]


def _tangents(tree, tangents):
    """The differentiable parts of Inputs, None for what is symbolically zero."""
    (d,) = tree.unflatten([None if type(t) is ad.Zero else t for t in tangents])
    return d._replace(valid=None, resets=None)


# Below, `tree` is that of (inputs,) for the sweep, and of (inputs, kept, tangents) for its
# tangent, whose parts are None where they are symbolically zero: those have no leaf at all.


def _sweep_jvp(primals, tangents, *, tree, update, implementation, keep):
    (inputs,) = tree.unflatten(primals)
    static = {"update": update, "implementation": implementation}
    time = inputs.x.shape[0]
    if not is_symbolic(time) and time == 1 and not keep:  # best differentiated as it stands
        plain = static | {"implementation": "blocked", "keep": False}
        run = functools.partial(_run_sweep, tree=tree, **plain)
        return _plain_jvp(run, primals, tangents)
    last, kept = _bind(sweep_p, inputs, keep=True, **static)
    d = _tangents(tree, tangents)
    d_out = jax.tree.leaves(_bind(tangent_p, inputs, kept, d, keep=keep, **static))
    out = jax.tree.leaves((last, kept if keep else kept.carries.h))
    # The residual is for a backward sweep that is differentiated without it.
    return out, d_out + [ad.Zero(jax.typeof(a).to_tangent_aval()) for a in out[len(d_out) :]]


def _tangent_jvp(primals, tangents, *, tree, **static):
    out = tangent_p.bind(*primals, tree=tree, **static)
    zero = [type(t) is ad.Zero for t in tangents]
    inputs, kept, d = tree.unflatten(zero)
    if all(jax.tree.leaves((inputs, kept))):
        inputs, kept, _ = tree.unflatten(primals)
        _, _, d = tree.unflatten([None if z else t for z, t in zip(zero, tangents, strict=True)])
        leaves, tree = jax.tree.flatten((inputs, kept, d))
        return out, tangent_p.bind(*leaves, tree=tree, **static)
    run = functools.partial(_run_tangent, tree=tree, **static)
    return out, _plain_jvp(run, primals, tangents)[1]


def _plain_jvp(run, primals, tangents):
    """`jax.jvp`, of the arguments alone whose tangents are not symbolic zeros."""
    zero = [type(t) is ad.Zero for t in tangents]

    def of_moving(*moving):
        moving = iter(moving)
        return run(*(p if z else next(moving) for p, z in zip(primals, zero, strict=True)))

    moving = [(p, t) for p, t, z in zip(primals, tangents, zero, strict=True) if not z]
    return jax.jvp(of_moving, *map(tuple, zip(*moving, strict=True)))


def _tangent_transpose(cotangents, *leaves, tree, update, implementation, keep):
    given = [None if ad.is_undefined_primal(leaf) else leaf for leaf in leaves]
    inputs, kept, _ = tree.unflatten(given)
    _, _, wanted = tree.unflatten(
        [leaf.aval if ad.is_undefined_primal(leaf) else None for leaf in leaves]
    )
    cotangents = list(map(ad.instantiate_zeros, cotangents))
    out_tree = _out_tree(tangent_p, inputs.carry, keep, implementation)
    g_last, g_ys = jax.tree.unflatten(out_tree, cotangents)
    backward = kernels.IMPLEMENTATIONS[implementation].backward
    g = iter(jax.tree.leaves(backward(update, keep, inputs, kept, wanted, g_last, g_ys)))
    return [next(g) if ad.is_undefined_primal(leaf) else None for leaf in leaves]


def _batch_axes(tree):
    """The batch axis of each leaf of a primitive's arguments; None for the weights'."""
    trees = tree.unflatten(range(tree.num_leaves))
    spread = lambda axes, part: jax.tree.map(lambda _: -1 if axes is None else axes, part)
    axes = [
        Inputs(*map(spread, BATCH_AXES, part)) if isinstance(part, Inputs) else spread(1, part)
        for part in trees
    ]
    return [None if axis == -1 else axis for axis in jax.tree.leaves(axes)]


def _batch(primitive, run, args, dims, *, tree, **static):
    axes = _batch_axes(tree)
    if any(dim is not None and axis is None for dim, axis in zip(dims, axes, strict=True)):
        outs = jax.vmap(functools.partial(run, tree=tree, **static), in_axes=tuple(dims))(*args)
        return outs, [0] * len(outs)
    size = next(a.shape[dim] for a, dim in zip(args, dims, strict=True) if dim is not None)

    def fold(a, dim, axis):
        if axis is None:
            return a
        if dim is not None:
            a = jnp.moveaxis(a, dim, axis)
        else:
            a = jnp.broadcast_to(jnp.expand_dims(a, axis), (*a.shape[:axis], size, *a.shape[axis:]))
        return a.reshape(*a.shape[:axis], size * a.shape[axis + 1], *a.shape[axis + 2 :])

    outs = primitive.bind(*map(fold, args, dims, axes), tree=tree, **static)
    inputs = tree.unflatten(args)[0]
    out_tree = _out_tree(primitive, inputs.carry, static["keep"], static["implementation"])
    last, stacked = jax.tree.unflatten(out_tree, outs)
    axes = jax.tree.leaves((jax.tree.map(lambda _: 0, last), jax.tree.map(lambda _: 1, stacked)))

    def unfold(a, axis):
        return a.reshape(*a.shape[:axis], size, a.shape[axis] // size, *a.shape[axis + 1 :])

    return list(map(unfold, outs, axes)), axes


sweep_p = _primitive("gated_sweep", _run_sweep, _sweep_types)
ad.primitive_jvps[sweep_p] = _sweep_jvp
tangent_p = _primitive("gated_tangent", _run_tangent, _tangent_types)
ad.primitive_jvps[tangent_p] = _tangent_jvp
ad.primitive_transposes[tangent_p] = _tangent_transpose
