"""How far a network forgets, or spreads, what its states were: products of Jacobian matrices."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxlstm import sequence
from jaxlstm.base import Array, Carry, Cell, Params
from jaxlstm.checks import check, check_size
from jaxlstm.diagnostics import taps
from jaxlstm.diagnostics.flow import batch_axes


def jacobian_products(
    cell: Cell,
    params: Params,
    xs: Any,
    carry: Carry | None = None,
    *,
    of: str | None = None,
    by: str | None = None,
    start: int = 0,
    key: Array | None = None,
    axes: int = 1,
) -> Array:
    """The Jacobian matrices of later states by an earlier one, lag by lag.

        ∂s_{start+k} / ∂s_start = J_{start+k} ... J_{start+1},   J_t = ∂s_t / ∂s_{t-1},   k ≥ 1

    where s_0 is the first carry. s is the whole carry, in which other parts are held: with
    `of="c", by="c"` of an LSTM, h_start does not move with c_start. A product is carried through
    time by forward differentiation; no J is kept.

    Args:
      cell: a Cell; for a Layer, the cells in it.
      params: its params.
      xs: (T, *B, D), time first; or a pytree of such arrays, if the cell takes one.
      carry: before the first step; by default the initial one.
      of: the state to differentiate, a name as in `Trace.states`; None for all, side by side in
        the carry's order.
      by: the state to differentiate by; None for all.
      start: how many steps to run before.
      key: a PRNG key for an initial carry that needs one.
      axes: how many axes an input has without time and batch: 1 for (D,), 3 for pictures.

    Returns:
      (T - start, *B, N, M), of N numbers by M numbers; the first is of lag 1.

    Raises:
      ValueError: if `cell` is not a Cell, there is no such state, or `start` is not in [0, T).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.diagnostics import jacobian_products
      >>> cell, xs = jl.lstm(8), jnp.ones((20, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> jacobian_products(cell, params, xs, of="h", by="c", start=5).shape
      (15, 2, 8, 8)

    References:
      Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, eq. 5.
    """
    return _products(lambda m: m, cell, params, xs, carry, of, by, start, key, axes)


def jacobian_norms(
    cell: Cell,
    params: Params,
    xs: Any,
    carry: Carry | None = None,
    *,
    of: str | None = None,
    by: str | None = None,
    start: int = 0,
    ord: int | str = 2,
    key: Array | None = None,
    axes: int = 1,
) -> Array:
    """The norms of `jacobian_products`, lag by lag; no matrix is kept.

    Args:
      cell: as for `jacobian_products`, as are the others that are not here.
      params: its params.
      xs: (T, *B, D).
      carry: before the first step.
      of: the state to differentiate.
      by: the state to differentiate by.
      start: how many steps to run before.
      ord: 2 for the largest singular value, `"fro"` for Frobenius, which is faster.
      key: a PRNG key.
      axes: how many axes an input has without time and batch.

    Returns:
      (T - start, *B); the first is of lag 1.

    Raises:
      ValueError: as `jacobian_products`, or if there is no such norm.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.diagnostics import jacobian_norms
      >>> cell, xs = jl.gru(8), jnp.ones((20, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> norms = jacobian_norms(cell, params, xs)
      >>> norms.shape, bool((norms[-1] < norms[0]).all())
      ((20, 2), True)

    References:
      See `jacobian_products`.
    """
    check(ord in (2, "fro"), "ord", "2 or 'fro'", repr(ord))
    norm = partial(jnp.linalg.norm, ord=ord)
    return _products(norm, cell, params, xs, carry, of, by, start, key, axes)


def lyapunov_exponents(
    cell: Cell,
    params: Params,
    xs: Any,
    carry: Carry | None = None,
    *,
    number: int | None = None,
    skip: int = 0,
    key: Array | None = None,
    axes: int = 1,
) -> Array:
    """The Lyapunov exponents of a network driven by a sequence, by the QR method.

        Q_t R_t = J_t Q_{t-1},   λ_i = mean over t of log |(R_t)_ii|,   J_t = ∂s_t / ∂s_{t-1}

    s is the whole carry. Q_0 is a random orthogonal matrix, the same at every call. What is near
    the first steps still depends on it and on the first carry: leave them out with `skip`.

    Args:
      cell: a Cell; for a Layer, the cells in it.
      params: its params.
      xs: (T, *B, D), time first; or a pytree of such arrays, if the cell takes one.
      carry: before the first step; by default the initial one.
      number: how many exponents, the largest; None for as many as the carry has numbers.
      skip: how many steps to leave out of the mean.
      key: a PRNG key for an initial carry that needs one.
      axes: how many axes an input has without time and batch: 1 for (D,), 3 for pictures.

    Returns:
      (*B, number), in falling order, in 1 / step; minus infinity for directions that a step
      wipes out.

    Raises:
      ValueError: if `cell` is not a Cell, `number` is more than the carry has, or `skip` is not in
        [0, T).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.diagnostics import lyapunov_exponents
      >>> cell, xs = jl.gru(8), jax.random.normal(jax.random.key(1), (100, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> exponents = lyapunov_exponents(cell, params, xs, number=3, skip=20)
      >>> exponents.shape, bool(exponents[0] < 0)
      ((3,), True)

    References:
      Vogt, Puelma Touzel, Shlizerman and Lajoie 2020, On Lyapunov exponents for RNNs,
      arXiv:2006.14123, algorithm 1; Benettin et al. 1980, Meccanica 15.
    """
    carry, batch = _begin(cell, params, xs, carry, key, axes)
    size = len(_places(carry, batch, None, "carry"))
    number = size if number is None else number
    check_size(number, "number")
    check(number <= size, "number", f"at most {size}, the numbers in the carry", number)
    _check_steps(skip, "skip", xs)
    q = jax.random.orthogonal(jax.random.key(0), size)[:, :number]

    def renewed(pushed):
        q, r = jnp.linalg.qr(pushed)
        return q, jnp.log(jnp.abs(jnp.diagonal(r)))

    logs = _push(renewed, cell, params, xs, carry, q, batch)
    return -jnp.sort(-logs[skip:].mean(0), axis=-1)


def _products(show, cell, params, xs, carry, of, by, start, key, axes):
    carry, batch = _begin(cell, params, xs, carry, key, axes)
    _check_steps(start, "start", xs)
    rows, columns = (_places(carry, batch, name, a) for name, a in ((of, "of"), (by, "by")))
    carry, _ = sequence.scan(cell, params, jax.tree.map(lambda a: a[:start], xs), carry)
    first = np.eye(len(_places(carry, batch, None, "carry")))[:, columns]
    shown = lambda pushed: (pushed, show(pushed[rows]))
    return _push(shown, cell, params, jax.tree.map(lambda a: a[start:], xs), carry, first, batch)


def _begin(cell, params, xs, carry, key, axes):
    """The first carry, and how many batch axes it has."""
    check(isinstance(cell, Cell), "cell", "a Cell (of a Layer, those in it)", repr(cell))
    batch = batch_axes(xs, axes)
    if carry is None:
        first = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), xs)
        carry = cell.initial_carry(params, first, key)
    return carry, batch


def _check_steps(steps, argument, xs):
    time = jax.tree.leaves(xs)[0].shape[0]
    fits = isinstance(steps, int | np.integer) and 0 <= steps < time
    check(fits, argument, f"a number of steps in [0, {time})", repr(steps))


def _places(carry, batch, name, argument):
    """Where in the numbers of a carry those of a state are."""
    places, end = {}, 0
    for state, leaf in _floats(carry):
        begin, end = end, end + math.prod(leaf.shape[batch:])
        places[state] = np.arange(begin, end)
    check(name is None or name in places, argument, f"None or one of {list(places)}", repr(name))
    return np.arange(end) if name is None else places[name]


def _floats(carry):
    """The states that can be differentiated, with their names."""
    named = zip(taps.state_names(carry), jax.tree.leaves(carry), strict=True)
    return [(n, a) for n, a in named if n is not None and jnp.issubdtype(a.dtype, jnp.floating)]


def _split(carry):
    """The numbers of a carry of no batch, (N,), and a function that puts others in their place."""
    names, leaves = taps.state_names(carry), jax.tree.leaves(carry)
    numbers, back = ravel_pytree([a for _, a in _floats(carry)])
    floating = [
        n is not None and jnp.issubdtype(a.dtype, jnp.floating)
        for n, a in zip(names, leaves, strict=True)
    ]

    def put(numbers):
        new = iter(back(numbers))
        old = zip(floating, leaves, strict=True)
        return jax.tree.unflatten(
            jax.tree.structure(carry), [next(new) if f else a for f, a in old]
        )

    return numbers, put


def _push(renew, cell, params, xs, carry, directions, batch):
    """What `renew` shows of the directions (N, M), pushed forward by each step."""

    def body(state, x):
        carry, directions = state
        numbers, put = _split(carry)

        def step(numbers):
            new, _ = cell.step(params, put(numbers), x)
            return _split(new)[0], new

        _, forward, carry = jax.linearize(step, numbers, has_aux=True)
        directions, shown = renew(jax.vmap(forward, 1, 1)(directions))
        return (carry, directions), shown

    def run(carry, xs):
        first = directions.astype(_split(carry)[0].dtype)
        return lax.scan(body, (carry, first), xs)[1]

    for _ in range(batch):
        run = jax.vmap(run, (0, 1), 1)
    return run(carry, xs)
