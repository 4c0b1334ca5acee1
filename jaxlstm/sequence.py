"""`scan`: a cell over a sequence. Lengths, masks, resets and reversal live here."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxlstm.base import (
    Array,
    Carry,
    Cell,
    Params,
    Persistent,
    is_symbolic,
    restart,
    select,
    vary_alike,
)
from jaxlstm.blocks import in_blocks
from jaxlstm.checks import check, check_flags, check_lengths, check_size, check_xs


def scan(
    cell: Cell,
    params: Params,
    xs: Any,
    carry: Carry | None = None,
    *,
    key: Array | None = None,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    reverse: bool = False,
    implementation: str | Callable | None = None,
    checkpoint: int | str | None = None,
) -> tuple[Carry, Any]:
    """Runs a cell over a sequence, or a ragged batch of them.

    With valid_t = mask_t and t < length:

        carry_t, y_t = step(params, initial if reset_t else carry_{t-1}, x_t)   if valid_t
        carry_t, y_t = (initial if reset_t and t < length else carry_{t-1}), 0  otherwise

    What `xs` holds at a step that is not valid, NaN included, reaches no value and no
    gradient. (Flax's `nn.RNN` leaves the outputs there as they come, and gives a sequence
    of no steps the carry after all its padding; here it is the initial carry.)

    Args:
      cell: the cell.
      params: its params, as `cell.init` gives them.
      xs: (T, *B, D) floating point, time first; or a pytree of such arrays, if the cell
        takes one. A lone sequence is (T, D).
      carry: the carry before the first step; by default `cell.initial_carry`.
      key: a PRNG key for the initial carry, for cells that draw one (dropout masks); with
        `resets` they need it also where a carry is given.
      lengths: (*B,) integers in [0, T]: how many steps each sequence has. Values that can't
        be looked at, under `jit`, count as the nearest one in that range.
      mask: (T, *B) booleans; False skips a step.
      resets: (T, *B) booleans; True puts the initial carry in before that step: the
        beginning of an episode or a document.
      reverse: runs each sequence from its own last step to its first; the outputs stay at
        their own times, and `resets` still mark the first step in time of each segment.
      implementation: None for the first that can serve, `"reference"` for `lax.scan` of
        `cell.step`, or a name that `explain` lists; or a function to call in this one's place,
        with its arguments but the last two, as `jaxlstm.diagnostics` has for cells in a Layer.
      checkpoint: for long sequences: the number of steps in a segment, at most, of which the
        gradient keeps the first carry alone and runs the segment again; `"sqrt"` for the
        square root of T, None, or T and more, to keep every carry.

    Returns:
      The carry after each sequence's own last step, and ys (T, *B, H), zero where a step is
      not valid.

    Raises:
      ValueError: if an argument's shape, dtype or value does not fit, or a named
        implementation can't serve.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.lstm(8), jnp.ones((5, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> carry, ys = jl.scan(cell, params, xs, lengths=jnp.array([5, 2]))
      >>> ys.shape, carry.c.shape, bool((ys[2:, 1] == 0).all())
      ((5, 2, 8), (2, 8), True)
    """
    check(isinstance(cell, Cell), "cell", "a Cell (a Layer has its own apply)", repr(cell))
    shape = check_xs(xs)
    lengths = check_lengths(lengths, shape)
    mask = check_flags(mask, "mask", shape)
    resets = check_flags(resets, "resets", shape)
    ranks = {a.ndim for a in (mask, resets) if a is not None}
    ranks |= {lengths.ndim + 1} if lengths is not None else set()
    check(len(ranks) < 2, "lengths, mask, resets", "the same batch axes in each", f"ranks {ranks}")
    if callable(implementation):
        options = dict(key=key, lengths=lengths, mask=mask, resets=resets, reverse=reverse)
        return implementation(cell, params, xs, carry, **options)
    arguments = (params, xs, carry, key, lengths, mask, resets)
    return _scan(cell, arguments, bool(reverse), implementation, _segment(checkpoint, shape[0]))


def explain(cell: Cell, params: Params, xs: Any) -> dict[str, Any]:
    """Which implementations can serve a scan of `cell` over `xs`, in order of preference.

    Args:
      cell: the cell.
      params: its params.
      xs: (T, *B, D), arrays or `jax.ShapeDtypeStruct`.

    Returns:
      A dict from each implementation's name to None if it can serve, else to the reason why
      not; for a cell made of cells, from each part's name to such a dict.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.gru(8), jnp.ones((5, 2, 3))
      >>> answers = jl.explain(cell, cell.init(jax.random.key(0), xs[0]), xs)
      >>> list(answers), answers["blocked"]
      (['native', 'blocked', 'reference'], None)
    """
    answers = {} if cell.unroll is None else cell.unroll.explain(params, xs)
    nested = any(isinstance(answer, dict) for answer in answers.values())
    return answers if nested else {**answers, "reference": None}


def _segment(checkpoint, time):
    if checkpoint is None:
        return None
    got = f"{checkpoint!r} for a symbolic number"
    check(not is_symbolic(time), "checkpoint", "None, or a known number of steps", got)
    if checkpoint == "sqrt":
        return max(1, math.isqrt(time))
    check(
        isinstance(checkpoint, int | str),
        "checkpoint",
        "a number of steps, 'sqrt' or None",
        repr(checkpoint),
    )
    check_size(checkpoint, "checkpoint")
    return checkpoint


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def _scan(cell, arguments, reverse, implementation, segment):
    params, xs, carry, key, lengths, mask, resets = arguments
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    _check_carry(cell, params, first, carry)
    initial = None
    if carry is None or resets is not None:
        initial = cell.initial_carry(params, first, key)
    carry = initial if carry is None else carry
    params, xs, carry, initial, lengths, mask, resets = vary_alike(
        (params, xs, carry, initial, lengths, mask, resets)
    )
    time = jax.tree.leaves(xs)[0].shape[0]
    order, valid, resets = _order(time, lengths, mask, resets, reverse)

    def run(carry, _, s):
        xs, valid, resets = s
        options = dict(initial=initial, implementation=implementation)
        return unroll(cell, params, carry, xs, valid=valid, resets=resets, **options)

    def run_moving(moving, start, s):
        carry, ys = run(join(moving), start, s)
        return split(carry), ys

    run_steps = (order(xs), order(valid), order(resets))
    if segment is None or segment >= time:
        carry, ys = run(carry, 0, run_steps)
    else:
        split, join = _moving(cell, params, carry, first, resets is not None)
        length = -(-time // -(-time // segment))  # all alike
        kept = jax.checkpoint(run_moving, prevent_cse=False)
        moving, ys = in_blocks(kept, split(carry), run_steps, length)
        carry = join(moving)
    return carry, order(ys)


def _moving(cell, params, carry, first, resets):
    """Functions from a carry to the leaves that a step or a reset changes, and back to the carry.

    What both leave as it is, as an attention's memory, need not be kept for each segment.
    """
    leaves, tree = jax.tree.flatten(carry)
    step = lambda leaves, x: jax.tree.leaves(cell.step(params, tree.unflatten(leaves), x)[0])
    jaxpr = jax.make_jaxpr(step)(leaves, first).jaxpr
    lasting = lambda part: isinstance(part, Persistent)
    of_part = lambda part: jax.tree.map(lambda _: resets and not lasting(part), part)
    reset = jax.tree.leaves(jax.tree.map(of_part, carry, is_leaf=lasting))
    into = jaxpr.invars[: len(leaves)]
    moves = [a is not b or r for a, b, r in zip(into, jaxpr.outvars, reset, strict=True)]

    def join(moving):
        new = iter(moving)
        return tree.unflatten(next(new) if m else a for m, a in zip(moves, leaves, strict=True))

    return lambda c: [a for m, a in zip(moves, jax.tree.leaves(c), strict=True) if m], join


def unroll(
    cell: Cell,
    params: Params,
    carry: Carry,
    xs: Any,
    *,
    valid: Array | None,
    resets: Array | None,
    initial: Carry | None,
    implementation: str | None,
) -> tuple[Carry, Any]:
    """`scan` with its options brought down to `valid` and `resets`, in the order of the run.

    For cells that are made of cells; everybody else wants `scan`.
    """
    zeros = lambda a: None if a is None else jax.tree.map(jnp.zeros_like, a)
    initial = None if resets is None else initial
    xs = select(valid, xs, zeros(xs))
    if cell.unroll is None and implementation not in (None, "reference"):
        raise ValueError(f"implementation: {cell} has no {implementation!r}, only 'reference'")
    empty = jax.tree.leaves(xs)[0].shape[0] == 0
    served = None
    if cell.unroll is not None and implementation != "reference" and not empty:
        run = functools.partial(cell.unroll, valid=valid, resets=resets, initial=initial)
        served = run(params, carry, xs, implementation=implementation)
    carry, ys = served or steps(cell.step, params, carry, xs, valid, resets, initial)
    return carry, select(valid, ys, zeros(ys))


def steps(
    step: Callable,
    params: Params,
    carry: Carry,
    xs: Any,
    valid: Array | None,
    resets: Array | None,
    initial: Carry | None,
) -> tuple[Carry, Any]:
    """`lax.scan` of a cell's step: what every implementation must equal."""

    def body(carry, s):
        x, valid, reset = s
        carry = restart(reset, initial, carry)
        new, y = step(params, carry, x)
        return select(valid, new, carry), y

    return lax.scan(body, carry, (xs, valid, resets))


def _order(time, lengths, mask, resets, reverse):
    """The order of the run, a function of pytrees (T, *B, ...), its own inverse; `valid`; `resets`.

    `valid` and `resets` are in the order of time.
    """
    order = lambda tree: jax.tree.map(lambda a: jnp.flip(a, 0), tree)
    valid = mask
    if lengths is not None:
        t = jnp.arange(time).reshape(time, *(1,) * lengths.ndim)
        lengths = jnp.clip(lengths, 0, time)
        within = t < lengths
        source = jnp.where(within, lengths - 1 - t, t)
        along = lambda a: source.reshape(source.shape + (1,) * (a.ndim - source.ndim))
        order = lambda tree: jax.tree.map(lambda a: jnp.take_along_axis(a, along(a), 0), tree)
        valid = within if mask is None else mask & within
        resets = None if resets is None else resets & within
    if not reverse:
        return (lambda tree: tree), valid, resets
    if resets is not None:  # run backwards, a segment begins where the next one in time began
        resets = jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])
    return order, valid, resets


def valid_steps(xs: Any, lengths: Any, mask: Any) -> Any:
    """`xs` (T, *B, ...), with zeros where a step is not valid."""
    time = jax.tree.leaves(xs)[0].shape[0]
    lengths = None if lengths is None else jnp.asarray(lengths)
    _, valid, _ = _order(time, lengths, None if mask is None else jnp.asarray(mask), None, False)
    return select(valid, xs, jax.tree.map(jnp.zeros_like, xs))


def _check_carry(cell, params, first, carry):
    if carry is None:
        return
    expected = jax.eval_shape(lambda key: cell.initial_carry(params, first, key), jax.random.key(0))
    # What belongs to the run (an attention's memory) has sizes of its own.
    lasting = lambda a: isinstance(a, Persistent)
    free = lambda tree: jax.tree.map(lambda a: None if lasting(a) else a, tree, is_leaf=lasting)
    expected, carry = free(expected), free(carry)
    shapes = lambda tree: jax.tree.map(lambda a: tuple(jnp.shape(a)), tree)
    same = jax.tree.structure(expected) == jax.tree.structure(carry)
    same = same and jax.tree.leaves(shapes(expected)) == jax.tree.leaves(shapes(carry))
    check(same, "carry", f"one of {cell} with shapes {shapes(expected)}", f"{shapes(carry)}")
