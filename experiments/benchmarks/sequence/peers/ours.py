"""jaxlstm: each implementation, under `vmap`, and with the batch split over devices."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxlstm as jl
from experiments.benchmarks.sequence.cases import Case, Given
from experiments.benchmarks.sequence.program import Program, jax_program, jax_step


def build(case: Case, given: Given, variant: str) -> Program:
    """`variant` is an implementation, or one with `":vmap"` or `":devices"` after it.

    Of a single step it is `"step"` or `"step:donated"`.
    """
    if case.row == "step":
        return _step(given, variant)
    implementation, _, way = variant.partition(":")
    layer = given.layer

    def scan(params, xs, lengths):
        options = dict(lengths=lengths, implementation=implementation)
        if isinstance(layer, jl.Layer):
            return layer.apply(params, xs, **options)[1]
        return jl.scan(layer, params, xs, **options)[1]

    alike = lambda gradients: gradients
    if way == "vmap":
        each = jax.vmap(scan, (None, 1, None if given.lengths is None else 0), 1)
        return jax_program(case, given, each, given.params, alike)
    if way == "devices":
        return _split(case, given, scan)
    return jax_program(case, given, scan, given.params, alike)


def _step(given, variant):
    carry = type(given.carry)
    step = lambda params, states, x: tuple(given.layer.step(params, carry(*states), x)[0])
    return jax_step(step, given.params, given, donate=variant == "step:donated")


def _split(case, given, scan):
    devices = jax.devices()
    if case.shape[0] % len(devices):
        raise ValueError(f"a batch of {case.shape[0]} can't be split over {len(devices)} devices")
    mesh = Mesh(np.array(devices), ("batch",))
    time_first, rows, whole = P(None, "batch"), P("batch"), P()
    run = jax.shard_map(
        scan, mesh=mesh, in_specs=(whole, time_first, rows), out_specs=time_first, check_vma=False
    )

    def put(xs, lengths):
        xs = jax.device_put(xs, NamedSharding(mesh, time_first))
        return xs, None if lengths is None else jax.device_put(lengths, NamedSharding(mesh, rows))

    params = jax.device_put(given.params, NamedSharding(mesh, whole))
    return jax_program(case, given, run, params, lambda gradients: gradients, put=put)
