"""A gated cell whose hidden units are split over devices, all gates of a unit on one of them.

Each device has the columns of W, U, b and whatever else belongs to its units, and h of all units:

    u_t = h_{t-1} U                 of its units
    carry_t = update(theta, carry_{t-1}, z_t, u_t)
    h_t = all_gather(h_t)           of all units

The gather is a part of the update, so that the kernels and the differentiation rule of the gated
recurrence serve as they are. Its transpose, a reduce-scatter, is all that the backward sweep
sends at a step; the gradients of W, U and b are products on each device, with nothing to sum.
Left to itself, of a bare LSTM with its weights split, XLA sums at each step what goes into all
gates, 4 B H numbers, gathers as many backward, and has the whole of W on every device.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlstm.base import Cell, Params, cell, vary_alike
from jaxlstm.checks import check, check_size
from jaxlstm.gated import GatedUnroll, gated_step

UNITS, ROWS = "hidden", "data"  # axes of a mesh: of the units, and of the batch


class HiddenShardings(NamedTuple):
    params: Any  # of each leaf: the last axis split, which is that of the units
    carry: Any  # the same, and the batch split where the mesh has an axis for it
    xs: NamedSharding  # (T, *B, D), and of anything else (T, B, ...): the batch alone


class HiddenParallelUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` of the bare cell, on each device for a part of the units."""

    bare: Cell
    devices: int | Mesh | None
    inside: GatedUnroll  # on a device: of its weights, and of carries with the h of all units

    def __call__(self, params, carry, xs, *, valid, resets, initial, implementation):
        mesh, weights = _split(self, params)
        if mesh.size == 1:
            flags = {"valid": valid, "resets": resets, "initial": initial}
            return self.bare.unroll(params, carry, xs, **flags, implementation=implementation)
        _check_rows(mesh, xs.shape[1:-1], "xs", "(T, B, ...)")

        def run(weights, carry, xs, valid, resets, initial):
            first = None if initial is None else _whole(initial)
            flags = {"valid": valid, "resets": resets, "initial": first}
            carry, ys = self.inside(
                weights, _whole(carry), xs, **flags, implementation=implementation
            )
            return carry._replace(h=_own(carry.h)), _own(ys)

        steps, carries = _specs(mesh, rows=1), _specs(mesh, rows=0, units=-1)
        of = (_specs(mesh, units=-1), carries, steps, steps, steps, carries)
        out = jax.tree.map(carries, carry), _specs(mesh, rows=1, units=-1)(xs)
        return _over(mesh, run, of, out, weights, carry, xs, valid, resets, initial)

    def explain(self, params, xs):
        mesh, weights = _split(self, params)
        if mesh.size == 1:
            return self.bare.unroll.explain(params, xs)
        return self.inside.explain(weights, jax.ShapeDtypeStruct(xs.shape, xs.dtype))

    def step(self, params, carry, x):
        """One step: the bare cell's, on each device for a part of the units."""
        mesh, weights = _split(self, params)
        if mesh.size == 1:
            return self.bare.step(params, carry, x)
        jax.eval_shape(self.bare.step, params, carry, x)  # which checks them
        _check_rows(mesh, x.shape[:-1], "x", "(B, ...)")

        def run(weights, carry, x):
            update = partial(_own_update, self.bare.unroll.update)
            return gated_step(update, weights, _whole(carry), x)[0]

        carries = _specs(mesh, rows=0, units=-1)
        of = (_specs(mesh, units=-1), carries, _specs(mesh, rows=0))
        carry = _over(mesh, run, of, jax.tree.map(carries, carry), weights, carry, x)
        return carry, carry.h


def _own(h):
    """Of h (..., H), this device's units."""
    size = h.shape[-1] // lax.axis_size(UNITS)
    return lax.dynamic_slice_in_dim(h, lax.axis_index(UNITS) * size, size, h.ndim - 1)


def _whole(carry):
    """A carry with the h of all units, of one with this device's."""
    return carry._replace(h=lax.all_gather(carry.h, UNITS, axis=carry.h.ndim - 1, tiled=True))


def _own_update(update, theta, carry, z, u):
    """`update` of this device's units, of a carry with the h of all."""
    new = update(theta, carry._replace(h=_own(carry.h)), z, u)
    return new._replace(h=new.h.astype(carry.h.dtype))  # before it is sent


def _whole_update(update, *arguments):
    return _whole(_own_update(update, *arguments))


def _as_it_is(weights):
    return weights


def _over(mesh, run, of, out, *arguments):
    """`run` of each device's part of the arguments, `of` being functions from leaves to specs."""
    specs = tuple(jax.tree.map(spec, a) for spec, a in zip(of, arguments, strict=True))
    alike = lambda *shards: run(*vary_alike(shards))
    return jax.shard_map(alike, mesh=mesh, in_specs=specs, out_specs=out)(*arguments)


def _specs(mesh, *, rows=None, units=None):
    """From an array to its spec, `rows` and `units` being the places of these axes."""

    def spec(a):
        axes = [None] * len(a.shape)
        if units is not None:
            axes[units] = UNITS
        if rows is not None and ROWS in mesh.axis_names and rows < len(axes):
            axes[rows] = ROWS
        return P(*axes)

    return spec


def _mesh(devices):
    if isinstance(devices, Mesh):
        return devices
    found = jax.devices()
    few = f"at most {len(found)}, as many as there are"
    check(devices is None or devices <= len(found), "devices", few, devices)
    found = found[:devices]
    return jax.make_mesh((len(found),), (UNITS,), (AxisType.Auto,), devices=found)


def _split(unroll, params):
    """The mesh, and the weights of all units, which it can split."""
    mesh, weights = _mesh(unroll.devices), unroll.bare.unroll.split(params)
    if mesh.size == 1:
        return mesh, weights
    hidden, number = weights.b.shape[-1], mesh.shape[UNITS]
    around = jax.sharding.get_abstract_mesh()
    own = around.empty or around == mesh.abstract_mesh
    check(own, "devices", f"no mesh around but its own, which may have an axis {ROWS!r}", around)
    norm = getattr(weights.theta, "norm", None)
    check(norm is None, "bare", "no layer normalisation, which is over all units", unroll.bare)
    no_projection = weights.projection is None
    check(no_projection, "bare", "no projection, whose sums are over all units", unroll.bare)
    last = {a.shape[-1] for a in jax.tree.leaves(params)} == {hidden}
    check(last, "bare", "params with the units as the last axis (no heads)", unroll.bare)
    expected = f"a hidden size that is a multiple of the {number} devices"
    check(hidden % number == 0, "bare", expected, hidden)
    return mesh, weights


def _check_rows(mesh, batch, argument, axes):
    number = dict(mesh.shape).get(ROWS)
    split = number is None or (batch and batch[0] % number == 0)
    expected = f"{axes} with B a multiple of the {number} along {ROWS!r}"
    check(split, argument, expected, f"batch axes {batch}")


@cell
def hidden_parallel(bare: Cell, devices: int | Mesh | None = None) -> Any:
    """A cell whose hidden units are split over devices, for weights too large for one of them.

        h = all_gather(h_1, ..., h_n)                 once a step
        carry_k' = step of W_k, U_k, b_k, ..., h      on device k, of its H / n units

    All gates of a unit are on one device, so that the gather is all that a step sends: B H
    numbers forward, and backward their gradients, added up and given out (reduce-scatter).
    Input products, weight gradients and the cell state stay where they are; only the gradients
    of peepholes, and of a GRU's b_n, have those of all h sent once more, a block of steps at a
    time. Each device has the h of all steps, whole. (Shoeybi et al. too split a layer's first
    matrix by its columns, and the second by its rows, so as to send once for both; a recurrent
    network has but one, whose h comes back at each step.)

    With an axis "data" of a mesh, the first batch axis is split over it as by `data_parallel`.
    `hidden_shardings` says how to place the params: what `init` gives is on one device.

    Args:
      bare: a cell of the gated recurrence (`lstm`, `gru`, `elman`, ...) without layer
        normalisation, projection or heads; its hidden size a multiple of the devices.
      devices: how many, the first of `jax.devices()`, by default all; or a mesh of them with axes
        of type Auto, "hidden" and maybe "data".

    Returns:
      A Cell with the params, carry and outputs of the bare one.

    Raises:
      ValueError: if `bare` is not a cell of the gated recurrence, or `devices` neither a positive
        integer nor such a mesh; when run, if the units or the batch can't be split evenly, the
        cell has an option that they can't be split with, there are fewer devices, or there is
        another mesh around (`jax.set_mesh`, `jax.shard_map`).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.hidden_parallel(jl.lstm(8 * jax.device_count())), jnp.ones((5, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> params = jax.device_put(params, jl.hidden_shardings(cell, params, xs[0]).params)
      >>> carry, ys = jl.scan(cell, params, xs)
      >>> {shard.data.shape for shard in ys.addressable_shards}
      {(5, 2, 8)}

    References:
      Shazeer et al. 2018, Mesh-TensorFlow, arXiv:1811.02084; Shoeybi et al. 2019, Megatron-LM,
      arXiv:1909.08053, section 3.
    """
    gated = bare.unroll if isinstance(bare, Cell) else None
    if not isinstance(gated, GatedUnroll):
        expected = "a Cell of the gated recurrence, as lstm, gru or elman"
        raise ValueError(f"bare: expected {expected}, got {bare!r}")
    if isinstance(devices, Mesh):
        axes = UNITS in devices.axis_names and {*devices.axis_names} <= {UNITS, ROWS}
        auto = all(kind is AxisType.Auto for kind in devices.axis_types)
        expected = f"axes {UNITS!r} and maybe {ROWS!r}, made with axis_types of AxisType.Auto"
        check(axes and auto, "devices", expected, repr(devices))
    elif devices is not None:
        check_size(devices, "devices")
    inside = GatedUnroll(partial(_whole_update, gated.update), _as_it_is)
    unroll = HiddenParallelUnroll(bare, devices, inside)
    return Cell(bare.init, bare.initial_carry, unroll.step, unroll)


def hidden_shardings(cell: Cell, params: Params, x: Any) -> HiddenShardings:
    """Where a `hidden_parallel` cell has what it works on: to place it there once.

    What is elsewhere, as all that `init` gives, is moved at each call. Optax's states and
    gradients follow the params.

    Args:
      cell: a `hidden_parallel` cell; of a stack, one after the other.
      params: its params, arrays or `jax.ShapeDtypeStruct`.
      x: one step, (*B, D), as for `init`.

    Returns:
      The shardings of the params, of a carry, and of xs.

    Raises:
      ValueError: if the cell is not `hidden_parallel`, or can't be split.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, x = jl.hidden_parallel(jl.gru(8 * jax.device_count())), jnp.ones((2, 3))
      >>> init = lambda key: cell.init(key, x)
      >>> like = jax.eval_shape(init, jax.random.key(0))
      >>> where = jl.hidden_shardings(cell, like, x)
      >>> params = jax.jit(init, out_shardings=where.params)(jax.random.key(0))
      >>> {shard.data.shape for shard in params.b_n.addressable_shards}
      {(8,)}

    References:
      See `hidden_parallel`.
    """
    split = isinstance(cell, Cell) and isinstance(cell.unroll, HiddenParallelUnroll)
    check(split, "cell", "a cell made by hidden_parallel", repr(cell))
    mesh, _ = _split(cell.unroll, params)
    _check_rows(mesh, x.shape[:-1], "x", "(B, ...)")
    carry = jax.eval_shape(cell.initial_carry, params, x)
    put = lambda spec: lambda a: NamedSharding(mesh, spec(a))
    return HiddenShardings(
        jax.tree.map(put(_specs(mesh, units=-1)), params),
        jax.tree.map(put(_specs(mesh, rows=0, units=-1)), carry),
        NamedSharding(mesh, P(None, ROWS if ROWS in mesh.axis_names else None)),
    )
