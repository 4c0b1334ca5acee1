"""Zoneout: units that now and then keep the state that they had."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Carry, Cell, Params, Persistent, cell
from jaxlstm.checks import check, describe
from jaxlstm.combine.noise import each, needed, sequence_keys, split_keys
from jaxlstm.linear_recurrence import LinearUnroll


class ZoneoutMasks(NamedTuple):
    c: Array | None = None  # (*B, H) booleans, True keeps the cell state; None for no zoneout
    h: Array | None = None  # (*B, R) the same for the hidden state


class ZoneoutCarry(NamedTuple):
    carry: Carry  # of the bare cell
    keys: Persistent  # (*B,)  PRNG keys, one a sequence (of a convlstm, one a place)


def zoneout_step(
    bare: Cell, params: Params, carry: Carry, x: Any, masks: ZoneoutMasks
) -> tuple[Carry, Any]:
    """One step of a cell of which some units keep the state that they had.

        c_t = m_c ⊙ c_{t-1} + (1 - m_c) ⊙ c̃_t,   h_t = m_h ⊙ h_{t-1} + (1 - m_h) ⊙ h̃_t

    where c̃ and h̃ are the cell's own; h̃ is made of c̃, not of c. The output h̃ becomes h: for what
    makes something else of it, `residual(zoneout(...))`.

    Args:
      bare: the cell.
      params: its params.
      carry: its carry, a NamedTuple with fields h and maybe c.
      x: a step of its input.
      masks: which units keep their states.

    Returns:
      The cell's carry after, and its output.

    Raises:
      ValueError: if the carry has not the fields that there are masks of, or not their shape; or
        if h is to be kept and is not the output.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, x = jl.gru(2), jnp.ones(3)
      >>> params = cell.init(jax.random.key(0), x)
      >>> masks = jl.ZoneoutMasks(h=jnp.array([True, False]))
      >>> _, h = jl.zoneout_step(cell, params, jl.GRUCarry(jnp.array([0.5, 0.5])), x, masks)
      >>> (h == 0.5).tolist()
      [True, False]

    References:
      Krueger et al. 2017, arXiv:1606.01305, section 3.
    """
    choose = lambda mask, old, new: jnp.where(mask, old, new)
    return _blended(bare, params, carry, x, masks._asdict(), choose)


def _blended(bare, params, carry, x, amounts, blend):
    """A step, then `blend(amount, old, new)` of each field of which there is an amount."""
    new, y = bare.step(params, carry, x)
    fields = {}
    for name, amount in amounts.items():
        if amount is not None:
            _check_field(carry, name)
            old = getattr(carry, name)
            fits = jnp.shape(amount) in ((), old.shape)
            check(fits, f"masks.{name}", f"shape {old.shape}, as carry.{name}", describe(amount))
            fields[name] = blend(amount, old, getattr(new, name)).astype(old.dtype)
    last = new._replace(**fields)
    if "h" not in fields:
        return last, y
    shown = y is new.h or isinstance(bare.unroll, LinearUnroll)
    check(shown, "h", "a cell whose output is its h; zone out what is inside", repr(bare))
    return last, last.h.astype(y.dtype)


def _check_field(carry, name):
    check(
        hasattr(carry, name), name, f"no zoneout of {name} for a carry without it", describe(carry)
    )


def _check_rates(bare, c, h):
    check(isinstance(bare, Cell), "bare", "a Cell", repr(bare))
    for name, rate in (("c", c), ("h", h)):
        check(0 <= rate < 1, name, "a number in [0, 1)", repr(rate))


@cell
def zoneout(bare: Cell, *, c: float = 0.0, h: float = 0.0) -> Cell:
    """A cell of which random units keep their states, drawn anew at each step: for training.

    Each sequence has a key of its own in the carry, so that its noise does not depend on the
    others of its batch, on padding, or on `vmap`. A sequence runs by `lax.scan` of the step.
    To evaluate, `expected_zoneout`, as the paper does, or the bare cell; the params are the same.

    Args:
      bare: the cell; its carry is a NamedTuple with a field h, and c if that is zoned out.
      c: chance of a unit to keep its cell state, in [0, 1).
      h: chance of a unit to keep its hidden state, in [0, 1).

    Returns:
      A Cell with the params of the bare one and the carry `ZoneoutCarry`.

    Raises:
      ValueError: if a rate is outside of [0, 1); when an initial carry is made, if there is no
        key, or the bare carry has no such field.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.lstm(8), jnp.ones((5, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> noisy = jl.zoneout(cell, c=0.5, h=0.05)
      >>> carry, ys = jl.scan(noisy, params, xs, key=jax.random.key(1))  # training
      >>> _, ys = jl.scan(jl.expected_zoneout(cell, c=0.5, h=0.05), params, xs)  # evaluation

    References:
      Krueger et al. 2017, Zoneout: regularizing RNNs by randomly preserving hidden activations,
      arXiv:1606.01305.
    """
    _check_rates(bare, c, h)
    rates = {name: rate for name, rate in (("c", c), ("h", h)) if rate}

    def initial_carry(params, x, key=None):
        of_carry, of_keys = jax.random.split(needed(key, bare, "zoneout"))
        carry = bare.initial_carry(params, x, of_carry)
        for name in ("h", *rates):
            _check_field(carry, name)
        return ZoneoutCarry(carry, Persistent(sequence_keys(of_keys, carry.h.shape[:-1])))

    def step(params, carry, x):
        inner = carry.carry
        keys, *now = split_keys(carry.keys.value, 1 + len(rates))
        draw = lambda rate, key, like: jax.random.bernoulli(key, rate, like.shape[key.ndim :])
        masks = {
            name: each(partial(draw, rate), key, getattr(inner, name))
            for (name, rate), key in zip(rates.items(), now, strict=True)
        }
        inner, y = zoneout_step(bare, params, inner, x, ZoneoutMasks(**masks))
        return ZoneoutCarry(inner, Persistent(keys)), y

    return Cell(bare.init, initial_carry, step)


@cell
def expected_zoneout(bare: Cell, *, c: float = 0.0, h: float = 0.0) -> Cell:
    """The cell to evaluate what was trained with `zoneout`: states mixed by their chances.

        c_t = r_c c_{t-1} + (1 - r_c) c̃_t,   h_t = r_h h_{t-1} + (1 - r_h) h̃_t

    Args:
      bare: the cell; its carry is a NamedTuple with a field h, and c if that is zoned out.
      c: chance of a unit to keep its cell state, r_c in [0, 1).
      h: chance of a unit to keep its hidden state, r_h in [0, 1).

    Returns:
      A Cell with the params and the carry of the bare one; no randomness.

    Raises:
      ValueError: if a rate is outside of [0, 1); at a step, if the carry has no such field.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.expected_zoneout(jl.gru(8), h=0.1), jnp.ones((5, 2, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (5, 2, 8)

    References:
      Krueger et al. 2017, arXiv:1606.01305, section 3: as dropout, the expectation at test time.
    """
    _check_rates(bare, c, h)
    rates = {"c": c or None, "h": h or None}
    mix = lambda rate, old, new: rate * old + (1 - rate) * new

    def step(params, carry, x):
        return _blended(bare, params, carry, x, rates, mix)

    return Cell(bare.init, bare.initial_carry, step)
