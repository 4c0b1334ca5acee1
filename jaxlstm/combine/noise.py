"""Noise for training: wrappers of cells with the params of the bare cell."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxlstm.base import Array, Carry, Cell, Params, Persistent, cell
from jaxlstm.checks import check
from jaxlstm.gated import GatedUnroll, gated_step


class DropoutMasks(NamedTuple):
    inputs: Array | None  # (*B, D)  0 or 1 / (1 - rate); None for no dropout
    recurrent: Array | None  # (*B, R)
    outputs: Array | None  # (*B, H)


class DropoutCarry(NamedTuple):
    carry: Carry  # of the bare cell
    masks: Persistent  # DropoutMasks, the same for the whole sequence and across resets


class DropoutUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` where only inputs and outputs are dropped: that of the bare cell."""

    bare: Cell

    def __call__(self, params, carry, xs, *, valid, resets, initial, implementation):
        masks = carry.masks.value
        initial = None if initial is None else initial.carry
        served = self.bare.unroll(
            params,
            carry.carry,
            _times(xs, masks.inputs),
            valid=valid,
            resets=resets,
            initial=initial,
            implementation=implementation,
        )
        if served is None:
            return None
        inner, ys = served
        return DropoutCarry(inner, carry.masks), _times(ys, masks.outputs)

    def explain(self, params, xs):
        return self.bare.unroll.explain(params, xs)


@cell
def variational_dropout(
    bare: Cell, rate: float, *, recurrent: float = 0.0, outputs: float = 0.0
) -> Cell:
    """A cell with dropout whose masks are drawn once a sequence.

        carry_t, y_t = step(params, carry_{t-1}, x_t ⊙ m_x) with (h_{t-1} ⊙ m_h) U;   y_t ⊙ m_y

    The masks come with the initial carry, which needs a key, and stay in the carry: they last
    as long as it is handed on, and a reset does not change them. To evaluate, use the bare
    cell with the same params.

    Args:
      bare: the cell to drop the inputs and outputs of.
      rate: how much of the inputs to drop, in [0, 1).
      recurrent: how much of h to drop in the recurrent product, in [0, 1), for a cell of the
        gated recurrence (`lstm`, `gru`, `elman`, ...); what a GRU keeps of h is not dropped.
        With it the sequence runs by `lax.scan` of the step.
      outputs: how much of the outputs to drop, in [0, 1).

    Returns:
      A Cell with the params of the bare one and the carry `DropoutCarry`.

    Raises:
      ValueError: if a rate is outside of [0, 1), or `recurrent` is given for a cell that is not
        of the gated recurrence; when an initial carry is made, if there is no key.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.lstm(8), jnp.ones((5, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> noisy = jl.variational_dropout(cell, 0.3, recurrent=0.2)
      >>> carry, ys = jl.scan(noisy, params, xs, key=jax.random.key(1))  # training
      >>> _, ys = jl.scan(cell, params, xs)  # evaluation

    References:
      Gal and Ghahramani 2016, arXiv:1512.05287, eq. 7 (one mask for all gates).
    """
    check(isinstance(bare, Cell), "bare", "a Cell", repr(bare))
    for name, value in (("rate", rate), ("recurrent", recurrent), ("outputs", outputs)):
        check(0 <= value < 1, name, "a number in [0, 1)", repr(value))
    gated = bare.unroll if isinstance(bare.unroll, GatedUnroll) else None
    check(not recurrent or gated is not None, "recurrent", f"0 for {bare}", recurrent)

    def initial_carry(params, x, key=None):
        of_carry, *keys = jax.random.split(needed(key, bare, "variational_dropout"), 4)
        carry = bare.initial_carry(params, x, of_carry)
        y = jax.eval_shape(bare.step, params, carry, x)[1]
        shaped = (x, carry.h if recurrent else None, y)
        rates = (rate, recurrent, outputs)
        for name, a, chance in (("rate", x, rate), ("outputs", y, outputs)):
            single = not chance or hasattr(a, "dtype")
            check(single, name, f"0 for {bare}, of which that is not one array", chance)
        masks = DropoutMasks(*map(_draw, keys, shaped, rates))
        return DropoutCarry(carry, Persistent(masks))

    def step(params, carry, x):
        masks, x = carry.masks.value, _times(x, carry.masks.value.inputs)
        if gated is None or masks.recurrent is None:
            inner, y = bare.step(params, carry.carry, x)
        else:
            weights = gated.split(params)
            inner, y = gated_step(gated.update, weights, carry.carry, x, masks.recurrent)
        return DropoutCarry(inner, carry.masks), _times(y, masks.outputs)

    fast = bare.unroll is not None and not recurrent
    return Cell(bare.init, initial_carry, step, DropoutUnroll(bare) if fast else None)


def weight_drop(params: Params, key: Array, rate: float) -> Params:
    """Drops recurrent weights (DropConnect): params for one training step, of a cell's params.

        w_h ⊙ m / (1 - rate),   m ~ Bernoulli(1 - rate)

    Done before `scan`, so that one mask serves a whole sequence and every fast implementation
    stays. Gradients flow to the params given. To evaluate, use the params as they are. (Merity
    et al. drop the recurrent weights of all gates, as here; PyTorch has no such thing.)

    Args:
      params: of any cell or layer; all arrays in fields named `w_h` are dropped, and nothing else:
        not "fgr"'s `w_gates`, not what a HyperLSTM's smaller one reads of h.
      key: a PRNG key.
      rate: how much to drop, in [0, 1).

    Returns:
      The params with some recurrent weights zero and the others scaled.

    Raises:
      ValueError: if the rate is outside of [0, 1), or no field is named `w_h`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.lstm(8), jnp.ones((5, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> dropped = jl.weight_drop(params, jax.random.key(1), 0.5)
      >>> carry, ys = jl.scan(cell, dropped, xs)

    References:
      Wan et al. 2013, Regularization of neural networks using DropConnect; Merity, Keskar and
      Socher 2018, arXiv:1708.02182, section 2.
    """
    check(0 <= rate < 1, "rate", "a number in [0, 1)", repr(rate))
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    recurrent = [getattr(path[-1], "name", None) == "w_h" for path, _ in leaves]
    check(any(recurrent), "params", "a field w_h", jax.tree_util.tree_structure(params))
    keys = jax.random.split(key, len(leaves))
    out = (
        _times(a, _draw(k, a, rate)) if drop else a
        for drop, k, (_, a) in zip(recurrent, keys, leaves, strict=True)
    )
    return jax.tree.unflatten(tree, list(out))


def _draw(key, like, rate):
    if not rate:
        return None
    kept = jax.random.bernoulli(key, 1 - rate, like.shape)
    return (kept / (1 - rate)).astype(like.dtype)


def _times(a, mask):
    return a if mask is None else a * mask


def sequence_keys(key: Array, batch: tuple[int, ...]) -> Array:
    """A key for each sequence of a batch, (*B,), for noise that does not depend on the others."""
    return jax.random.split(key, batch) if batch else key


def split_keys(keys: Array, number: int) -> list[Array]:
    """From each sequence's key that many new ones: a list of (*B,)."""
    return list(each(lambda key: tuple(jax.random.split(key, number)), keys))


def each(draw: Callable, keys: Array, *like: Any) -> Any:
    """`draw(key, *like)` for each sequence's key."""
    for _ in range(keys.ndim):
        draw = jax.vmap(draw)
    return draw(keys, *like)


def needed(key: Array | None, bare: Cell, wrapper: str) -> Array:
    """The key; ValueError if there is none."""
    if key is None:
        raise ValueError(f"key: {bare} with {wrapper} draws masks and needs a key")
    return key
