"""A cell whose batch is split over devices, a CPU's cores among them."""

from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxlstm import sequence
from jaxlstm.base import Cell, cell, vary_alike
from jaxlstm.checks import check, check_size

AXIS = "devices"
ROWS, STEPS = P(AXIS), P(None, AXIS)  # of (B, ...) and (T, B, ...)


class DataParallelUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` of the bare cell, on each device for a part of the batch."""

    bare: Cell
    devices: int | None

    def __call__(self, params, carry, xs, *, valid, resets, initial, implementation):
        def run(params, carry, xs, valid, resets, initial):
            flags = {"valid": valid, "resets": resets, "initial": initial}
            return sequence.unroll(
                self.bare, params, carry, xs, **flags, implementation=implementation
            )

        arguments = (params, carry, xs, valid, resets, initial)
        found = jax.devices()
        few = f"at most {len(found)}, as many as there are"
        check(self.devices is None or self.devices <= len(found), "devices", few, self.devices)
        devices = found[: self.devices]
        if len(devices) == 1 or not jax.sharding.get_abstract_mesh().empty:
            return run(*arguments)
        shape = jax.tree.leaves(xs)[0].shape
        split = len(shape) > 2 and shape[1] % len(devices) == 0
        expected = f"(T, B, ...) with B a multiple of the {len(devices)} devices"
        check(split, "xs", expected, f"shape {shape}")
        flags = STEPS if valid is None or valid.ndim > 1 else P()
        of_resets = STEPS if resets is None or resets.ndim > 1 else P()
        return jax.shard_map(
            lambda *shards: run(*vary_alike(shards)),
            mesh=jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices),
            in_specs=(P(), ROWS, STEPS, flags, of_resets, ROWS),
            out_specs=(ROWS, STEPS),
        )(*arguments)

    def explain(self, params, xs):
        part = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), xs)  # of a device
        return sequence.explain(self.bare, params, part)


@cell
def data_parallel(bare: Cell, devices: int | None = None) -> Any:
    """A cell that runs over a sequence with its batch split over devices.

    On a CPU, a device for each core, as many as `jax.config.update("jax_num_cpu_devices", 2)`
    says before JAX is first used: a scan makes little use of more than one core, two scans of
    half the batch make use of two. Weights are copied to all devices, and their gradients are
    summed over them. Within a mesh of the caller's own (`jax.set_mesh`, `jax.shard_map`) it is
    the bare cell.

    Args:
      bare: the cell.
      devices: how many, the first of `jax.devices()`; by default all.

    Returns:
      A Cell with the params, carry and outputs of the bare one.

    Raises:
      ValueError: if `bare` is not a Cell or `devices` not a positive integer; when run, if the
        first batch axis can't be split evenly, or there are fewer devices.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.data_parallel(jl.lstm(8)), jnp.ones((5, 2 * jax.device_count(), 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> carry, ys = jl.scan(cell, params, xs)
      >>> ys.shape[-1]
      8
    """
    check(isinstance(bare, Cell), "bare", "a Cell", repr(bare))
    if devices is not None:
        check_size(devices, "devices")
    return bare._replace(unroll=DataParallelUnroll(bare, devices))
