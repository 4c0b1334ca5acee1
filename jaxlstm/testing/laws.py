"""The laws that every `Cell` keeps, as functions that raise AssertionError where it does not.

A law is `check_<law>(cell, key, x)`, with the arguments of `check_cell`, which holds a cell to
all of them. The oracle shares no code with `scan`: `alone`, a loop over `cell.step` on each
sequence by itself. Params are drawn away from their initial values, and carries from zero.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.base import Array, Cell
from jaxlstm.sequence import explain, scan
from jaxlstm.testing.oracle import alone, draw

OPTIONS = ("lengths", "mask", "resets")
TOLERANCE = 1e-10  # float64 sums in another order, over some ten steps; of an array's largest
STEP, DIFFERENCE = 3e-6, 1e-6  # of central differences, and their error for slopes near a hundred


def check_cell(cell: Cell, key: Array, x: Any) -> None:
    """Holds a cell to every law of this module.

    Args:
      cell: the cell.
      key: a PRNG key, of which params, carries and sequences are drawn.
      x: one step (B, D) in float64, an array or a `jax.ShapeDtypeStruct`; B at least 3.

    Raises:
      AssertionError: if a law does not hold; the message says which, and where.
      ValueError: if x is not (B, D) in float64.

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm.testing import check_cell
      >>> with jax.enable_x64(True):
      ...   check_cell(jl.elman(5), jax.random.key(0), jax.ShapeDtypeStruct((3, 4), "float64"))
    """
    for law in LAWS:
        law(cell, key, x)


def check_scan(cell: Cell, key: Array, x: Any) -> None:
    """A scan is the loop of steps, in values and gradients."""
    case = draw(cell, key, x)
    expected = _derived(functools.partial(alone, cell), *case[:3])
    _same(_pull(cell, case[:3], {}), expected, cell, "scan")


def check_implementations(cell: Cell, key: Array, x: Any) -> None:
    """Every implementation that can serve is the reference, in values and gradients."""
    case = draw(cell, key, x)
    names = _names(explain(cell, case.params, case.xs))
    run = functools.partial(_pull, cell, case[:3], _options(case, *OPTIONS), True)
    for name in (None, *names[1:]) if names else ():  # None is the first
        _same(run(name), run("reference"), cell, f"implementation {name or names[0]}")


def check_options(cell: Cell, key: Array, x: Any) -> None:
    """Each option of a scan is the loop with steps left out, begun anew or backwards."""
    case = draw(cell, key, x)
    for names in ((), *zip(OPTIONS, strict=True)):
        for reverse in (False, True):
            options = _options(case, *names)
            actual, _ = _pull(cell, case[:3], options, reverse)
            expected = alone(cell, *case[:3], reverse, **options)
            _same(actual, expected, cell, f"{names}, reverse={reverse}")


def check_padding(cell: Cell, key: Array, x: Any) -> None:
    """With every option at once, NaN in padding reaches no value and no gradient."""
    case = draw(cell, key, x)
    padded = ~case.mask | (np.arange(len(case.mask))[:, None] >= case.lengths)
    options = _options(case, *OPTIONS)
    xs = jax.tree.map(lambda a: a.at[np.nonzero(padded)].set(jnp.nan), case.xs)
    for reverse in (False, True):
        run = functools.partial(alone, cell, reverse=reverse, **options)
        actual = _pull(cell, (case.params, xs, case.carry), options, reverse)
        _same(actual, _derived(run, *case[:3]), cell, f"NaN in padding, reverse={reverse}")


def check_vmap(cell: Cell, key: Array, x: Any) -> None:
    """Mapped over a batch, a lone sequence has the batch's values and gradients."""
    case = draw(cell, key, x)
    options = _options(case, *OPTIONS)
    actual = _pull(cell, case[:3], options, mapped=True)
    _same(actual, _pull(cell, case[:3], options), cell, "vmap")


def check_jit(cell: Cell, key: Array, x: Any) -> None:
    """Under `jit`, with options that can't be looked at, the values are the same."""
    case = draw(cell, key, x)
    traced, _ = _pull(cell, case[:3], _options(case, "resets"))
    _same(traced, scan(cell, *case[:3], key=case.key, resets=case.resets), cell, "jit")


def check_continuation(cell: Cell, key: Array, x: Any) -> None:
    """A step after a scan goes on where the scan ended."""
    case = draw(cell, key, x, 14)
    of = lambda at: jax.tree.map(lambda a: a[at], case.xs)
    carry, ys = scan(cell, case.params, of(slice(13)), case.carry)
    carry, y = jax.jit(cell.step)(case.params, carry, of(13))
    ys = jax.tree.map(lambda ys, y: jnp.concatenate([ys, y[None]]), ys, y)
    _same((carry, ys), alone(cell, *case[:3]), cell, "step after scan")


def check_batch_axes(cell: Cell, key: Array, x: Any) -> None:
    """No batch axis, and two, give what one does."""
    case = draw(cell, key, x)
    carry, ys = alone(cell, *case[:3], mask=case.mask)
    lone = lambda tree, axis: jax.tree.map(lambda a: jnp.take(a, 0, axis), tree)
    pair = lambda tree, axis: jax.tree.map(lambda a: jnp.stack([a, jnp.flip(a, axis)], axis), tree)
    for change, axes in ((lone, "no batch axis"), (pair, "two batch axes")):
        primals = case.params, change(case.xs, 1), change(case.carry, 0)
        actual = scan(cell, *primals, mask=change(case.mask, 1))
        _same(actual, (change(carry, 0), change(ys, 1)), cell, axes)


def check_times(cell: Cell, key: Array, x: Any) -> None:
    """No step at all, one, and a prime number of steps are scans too."""
    for time in (0, 1, 13):
        case = draw(cell, key, x, time)
        _same(scan(cell, *case[:3]), alone(cell, *case[:3]), cell, f"{time} steps")


def check_traces(cell: Cell, key: Array, x: Any) -> None:
    """Ten scans trace the cell no more than one does."""
    case = draw(cell, key, x, 1)
    traces: Any = []
    counted: Any = lambda run: run and (lambda *a, **kw: traces.append(1) or run(*a, **kw))
    cell = cell._replace(step=counted(cell.step), unroll=counted(cell.unroll))
    counts = [len(traces) for _ in range(10) if scan(cell, *case[:3])]
    assert counts[-1] == counts[0] > 0, f"{cell}: traced again, {counts}"


def check_derivatives(cell: Cell, key: Array, x: Any) -> None:
    """Derivatives, and those of the gradient, are central differences; vjp is jvp transposed."""
    case = draw(cell, key, x)
    floats, put = _floats(case[:3])
    rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, 1))))
    along = [jnp.asarray(rng.normal(size=a.shape), a.dtype) for a in floats]
    run = lambda *floats: _floats(_pull(cell, put(floats), {}))[0]
    values, derivatives = jax.jvp(run, floats, along)
    at = lambda step: put([a + step * t for a, t in zip(floats, along, strict=True)])
    up, down = (_floats(_pull(cell, at(step), {}))[0] for step in (STEP, -STEP))
    slopes = [(a - b) / (2 * STEP) for a, b in zip(up, down, strict=True)]
    _same(derivatives, slopes, cell, "jvp and Hessian-vector product", DIFFERENCE)
    outputs = len(values) - len(along)
    dot = lambda a, b: sum(map(jnp.vdot, a, b))
    forward = dot(map(jnp.cos, values[:outputs]), derivatives[:outputs])
    _same(dot(values[outputs:], along), forward, cell, "vjp against jvp")


LAWS: tuple[Any, ...] = (check_scan, check_implementations, check_options, check_padding)
LAWS += (check_vmap, check_jit, check_continuation, check_batch_axes, check_times)
LAWS += (check_traces, check_derivatives)


def _floats(tree):
    """The floating-point leaves, and a function that puts others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    at = [n for n, a in enumerate(leaves) if jnp.issubdtype(a.dtype, jnp.floating)]

    def put(floats):
        new = dict(zip(at, floats, strict=True))
        return structure.unflatten([new.get(n, a) for n, a in enumerate(leaves)])

    return [leaves[n] for n in at], put


def _derived(run, *primals):
    """The outputs, and the gradients of the sum of their sines."""
    floats, put = _floats(primals)

    def outputs(floats):
        tree = run(*put(floats))
        return _floats(tree)[0], tree

    values, pull, tree = jax.vjp(outputs, floats, has_aux=True)
    return tree, put(pull([jnp.cos(a) for a in values])[0])


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _pull(cell, primals, options, reverse=False, implementation=None, mapped=False):
    static = dict(reverse=reverse, implementation=implementation)
    run = lambda options, *primals: scan(cell, *primals, **options, **static)
    axes = {name: {"key": None, "lengths": 0}.get(name, 1) for name in options}
    run = jax.vmap(run, (axes, None, 1, 0), (0, 1)) if mapped else run
    return _derived(functools.partial(run, options), *primals)


def _options(case, *names):
    """Every option of `scan`, all but these at values that change nothing: one program for all."""
    time, batch = case.mask.shape
    neutral = np.full(batch, time), np.ones((time, batch), bool), np.zeros((time, batch), bool)
    options = dict(zip(OPTIONS, neutral, strict=True), key=case.key)
    return options | {name: getattr(case, name) for name in names}


def _names(answers):
    """The implementations that can serve in every part of a cell, the reference left out."""
    parts = [_names(a) for a in answers.values() if isinstance(a, dict)]
    parts = parts or [[name for name, reason in answers.items() if reason is None]]
    return [n for n in parts[0] if n != "reference" and all(n in part for part in parts)]


def _same(actual, expected, cell, law, tolerance=TOLERANCE):
    assert jax.tree.structure(actual) == jax.tree.structure(expected), f"{cell}: {law}: structure"
    actual = jax.tree_util.tree_leaves_with_path(actual)
    for (path, a), e in zip(actual, jax.tree.leaves(expected), strict=True):
        message = f"{cell}: {law}: {jax.tree_util.keystr(path)}"
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, e = jax.random.key_data(a), jax.random.key_data(e)
        bound = tolerance * max(1.0, np.abs(e).max(initial=0))
        np.testing.assert_allclose(a, e, 0, bound, equal_nan=False, err_msg=message)
