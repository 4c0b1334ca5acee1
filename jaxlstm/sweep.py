"""The sweep over a sequence and its differentiation rule, above every implementation.

The rule is a pair of primitives. `sweep_p` runs the recurrence; its derivative is `tangent_p`,
linear in all tangents at once. The transpose of `tangent_p` is an implementation's backward
sweep, with the weight gradients as products over blocks of time; its derivative is that of
the plain tangent sweep, which gives second order; and the batching rule of both folds a
mapped axis into the batch, so that `vmap` costs what the batch would. A lone sequence has no
batch axis before that: an axis of one beside the mapped one would have all arrays transposed.
"""

import functools

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxlstm import kernels
from jaxlstm.base import Array, Carry, is_symbolic
from jaxlstm.kernels import blocked
from jaxlstm.kernels.recurrence import Inputs, Kept, Update, emit

BATCH_AXES = (None, 1, 0, 0, 1, 1)  # of the leaves of each part of Inputs


def sweep(update: Update, implementation: str, inputs: Inputs) -> tuple[Carry, Array]:
    """The last carry and all h of the recurrence; differentiable in every way.

    Args:
      update: the recurrence.
      implementation: the name of one in `jaxlstm.kernels`.
      inputs: of a batch, or without a batch axis of a lone sequence.
    """
    static = {"update": update, "implementation": implementation, "keep": False}
    return _bind(sweep_p, inputs, **static, alone=inputs.x.ndim == 2)


def _bind(primitive, *trees, **static):
    leaves, tree = jax.tree.flatten(trees)
    out_tree = _out_tree(primitive, trees[0].carry, static["keep"], static["implementation"])
    return jax.tree.unflatten(out_tree, primitive.bind(*leaves, tree=tree, **static))


def _out_tree(primitive, carry, keep, implementation):
    if primitive is sweep_p and keep:
        residual = kernels.IMPLEMENTATIONS[implementation].RESIDUAL
        return jax.tree.structure((carry, Kept(carry, residual)))
    return jax.tree.structure((carry, emit(carry, keep)))


def _of_batches(run):
    """A function of batches, of a lone sequence too."""

    @functools.wraps(run)
    def of_any(*leaves, tree, alone, **static):
        if not alone:
            return run(*leaves, tree=tree, **static)
        outs = run(*map(_expanded, leaves, _batch_axes(tree)), tree=tree, **static)
        return list(map(jnp.squeeze, outs, _out_axes(tree, outs)))

    return of_any


def _expanded(a, axis):
    if axis is None:
        return a
    if isinstance(a, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((*a.shape[:axis], 1, *a.shape[axis:]), a.dtype)
    return jnp.expand_dims(a, axis)


@_of_batches
def _run_sweep(*leaves, tree, update, implementation, keep):
    (inputs,) = tree.unflatten(leaves)
    return jax.tree.leaves(kernels.IMPLEMENTATIONS[implementation].forward(update, keep, inputs))


@_of_batches
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


def _sweep_jvp(primals, tangents, *, tree, update, implementation, keep, alone):
    (inputs,) = tree.unflatten(primals)
    static = {"update": update, "implementation": implementation, "alone": alone}
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


def _tangent_transpose(cotangents, *leaves, tree, update, implementation, keep, alone):
    wanted = [ad.is_undefined_primal(leaf) for leaf in leaves]
    shape = lambda aval: jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    leaves = [shape(a.aval) if w else a for a, w in zip(leaves, wanted, strict=True)]
    cotangents = list(map(ad.instantiate_zeros, cotangents))
    axes = _batch_axes(tree)
    if alone:
        leaves = list(map(_expanded, leaves, axes))
        cotangents = list(map(_expanded, cotangents, _out_axes(tree, cotangents)))
    keeping = lambda where: [a if w is where else None for a, w in zip(leaves, wanted, strict=True)]
    inputs, kept, _ = tree.unflatten(keeping(False))
    _, _, d = tree.unflatten(keeping(True))
    out_tree = _out_tree(tangent_p, inputs.carry, keep, implementation)
    g_last, g_ys = jax.tree.unflatten(out_tree, cotangents)
    backward = kernels.IMPLEMENTATIONS[implementation].backward
    g = iter(jax.tree.leaves(backward(update, keep, inputs, kept, d, g_last, g_ys)))
    gradients = [next(g) if w else None for w in wanted]
    if not alone:
        return gradients
    squeezed = lambda g, axis: g if g is None or axis is None else jnp.squeeze(g, axis)
    return list(map(squeezed, gradients, axes))


def _batch_axes(tree):
    """The batch axis of each leaf of a primitive's arguments; None for the weights'."""
    trees = tree.unflatten(range(tree.num_leaves))
    spread = lambda axes, part: jax.tree.map(lambda _: -1 if axes is None else axes, part)
    axes = [
        Inputs(*map(spread, BATCH_AXES, part)) if isinstance(part, Inputs) else spread(1, part)
        for part in trees
    ]
    return [None if axis == -1 else axis for axis in jax.tree.leaves(axes)]


def _out_axes(tree, outs):
    """The batch axis of each leaf of a primitive's results: of the last carry, and of the steps."""
    last = len(jax.tree.leaves(tree.unflatten(range(tree.num_leaves))[0].carry))
    return [0 if n < last else 1 for n in range(len(outs))]


def _batch(primitive, run, args, dims, *, tree, alone, **static):
    axes = _batch_axes(tree)
    if any(dim is not None and axis is None for dim, axis in zip(dims, axes, strict=True)):
        mapped = functools.partial(run, tree=tree, alone=alone, **static)
        outs = jax.vmap(mapped, in_axes=tuple(dims))(*args)
        return outs, [0] * len(outs)
    one = next(n for n, dim in enumerate(dims) if dim is not None)
    others = list(args[one].shape)
    size = others.pop(dims[one])
    rows = None if alone else others[axes[one]]

    def fold(a, dim, axis):
        if axis is None:
            return a
        if dim is not None:
            a = jnp.moveaxis(a, dim, axis)
        else:
            a = jnp.broadcast_to(jnp.expand_dims(a, axis), (*a.shape[:axis], size, *a.shape[axis:]))
        if alone:
            return a
        return a.reshape(*a.shape[:axis], size * a.shape[axis + 1], *a.shape[axis + 2 :])

    def unfold(a, axis):
        if alone:
            return a
        return a.reshape(*a.shape[:axis], size, rows, *a.shape[axis + 1 :])

    outs = primitive.bind(*map(fold, args, dims, axes), tree=tree, alone=False, **static)
    axes = _out_axes(tree, outs)
    return list(map(unfold, outs, axes)), axes


sweep_p = _primitive("gated_sweep", _run_sweep, _sweep_types)
ad.primitive_jvps[sweep_p] = _sweep_jvp
tangent_p = _primitive("gated_tangent", _run_tangent, _tangent_types)
ad.primitive_jvps[tangent_p] = _tangent_jvp
ad.primitive_transposes[tangent_p] = _tangent_transpose
