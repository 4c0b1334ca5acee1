"""jaxlstm: each implementation, under `vmap`, and with the batch split over devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxlstm as jl
from experiments.benchmarks.sequence.cases import Case, Given, layer_of
from experiments.benchmarks.sequence.program import Program, jax_program, jax_step

SEGMENT = 512  # steps of which a checkpoint keeps the first carry alone


def build(case: Case, given: Given, variant: str) -> Program:
    """`variant` is an implementation, maybe with `":vmap"`, `":devices"` or `":checkpoint"`.

    Of a single step it is `"step"`, `"step:donated"`, or `streaming` as `"stream:IMPLEMENTATION"`.
    """
    if case.row == "step":
        return _step(given, variant)
    implementation, _, way = variant.partition(":")
    layer, params = given.layer, given.params
    if way == "devices":
        layer = layer_of(case, jl.data_parallel)

    def scan(params, xs, lengths):
        segment = SEGMENT if way == "checkpoint" else None
        options = dict(lengths=lengths, implementation=implementation, checkpoint=segment)
        if isinstance(layer, jl.Layer):
            return layer.apply(params, xs, **options)[1]
        return jl.scan(layer, params, xs, **options)[1]

    alike = lambda gradients: gradients
    if way == "vmap":
        each = jax.vmap(scan, (None, 1, None if given.lengths is None else 0), 1)
        return jax_program(case, given, each, params, alike)
    if way == "devices":
        return jax_program(case, given, scan, put_over(params, P()), alike, put=put)
    return jax_program(case, given, scan, params, alike)


def put_over(tree, spec):
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), (AxisType.Auto,))
    return jax.device_put(tree, NamedSharding(mesh, spec))


def put(xs, lengths):
    lengths = None if lengths is None else put_over(lengths, P("devices"))
    return put_over(xs, P(None, "devices")), lengths


def _step(given, variant):
    cell, of = given.layer, type(given.carry)
    kind, _, how = variant.partition(":")
    if kind == "step":
        step = lambda params, states, x: tuple(cell.step(params, of(*states), x)[0])
        return jax_step(step, given.params, given, donate=how == "donated")
    x, state = jnp.asarray(given.xs[0]), [jax.tree.map(jnp.array, given.carry)]
    step = jl.streaming(cell, given.params, x, implementation=how)

    def call():
        state[0], _ = jax.block_until_ready(step(state[0], x))
        return state[0]

    return Program(call, lambda carry: jax.tree.map(np.asarray, carry._asdict()))
