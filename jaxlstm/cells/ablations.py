"""The eight variants of the LSTM in "A search space odyssey", each with one thing changed."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlstm.base import Array, Parts, cell
from jaxlstm.checks import check, check_floating, check_size
from jaxlstm.gated import GatedUnroll, Weights, gated_step, state_dtypes
from jaxlstm.gates import named, sigmoid, sums, tanh
from jaxlstm.initializers import gate_weights, orthogonal

# The gates that have weights, in the order i, f, g, o.
GATES = {
    "nig": "fgo",
    "nfg": "igo",
    "nog": "ifg",
    "niaf": "ifgo",
    "noaf": "ifgo",
    "np": "ifgo",
    "cifg": "igo",
    "fgr": "ifgo",
}


class LSTMAblationParams(NamedTuple):
    w_x: Array  # (D, G, H)  those of the gates i, f, g, o that the variant has
    w_h: Array  # (H, G, H)
    b: Array  # (G, H)
    peephole: Array | None  # (P, H)  those of i, f, o; None in "np"
    w_gates: Array | None  # (3, H, 3, H)  from the gates i, f, o before to i, f, o; only in "fgr"


class LSTMAblationCarry(NamedTuple):
    c: Array  # (*B, H)  cell state; float32 where h is of half precision
    h: Array  # (*B, H)  hidden state
    gates: Array | None  # (*B, 3, H)  i, f, o of the step before; only in "fgr"


def init_lstm_ablation(
    key: Array,
    features: int,
    hidden: int,
    name: str,
    *,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> LSTMAblationParams:
    """Draws the params of a variant: Glorot, orthogonal, zero biases but f's, zero peepholes.

    The paper draws all weights from a normal distribution of deviation 0.1.

    Args:
      key: a PRNG key.
      features: D, the size of an input.
      hidden: H, the size of the states.
      name: of the variant; see `lstm_ablation`.
      forget_bias: initial value of the forget gate's bias, where there is one.
      dtype: of all params.

    Returns:
      The params.

    Raises:
      ValueError: if a size is not a positive integer, or there is no such variant.

    Example:
      >>> import jax
      >>> from jaxlstm import init_lstm_ablation
      >>> params = init_lstm_ablation(jax.random.key(0), features=3, hidden=4, name="cifg")
      >>> params.w_x.shape, params.peephole.shape
      ((3, 3, 4), (2, 4))
    """
    check_size(features, "features")
    check_size(hidden, "hidden")
    _check_name(name)
    names = GATES[name]
    of_gates, of_recurrence = jax.random.split(key)
    w_x, w_h = gate_weights(of_gates, features, hidden, (len(names),), dtype)
    b = jnp.zeros((len(names), hidden), dtype)
    if "f" in names:
        b = b.at[names.index("f")].set(forget_bias)
    peephole = None if name == "np" else jnp.zeros((len(names) - 1, hidden), dtype)
    w_gates = None
    if name == "fgr":
        wide = jnp.promote_types(dtype, jnp.float32)
        draw = lambda key: orthogonal(key, hidden, wide)
        blocks = jax.vmap(draw)(jax.random.split(of_recurrence, 9)).astype(dtype)
        w_gates = blocks.reshape(3, 3, hidden, hidden).swapaxes(1, 2)
    return LSTMAblationParams(w_x, w_h, b, peephole, w_gates)


def lstm_ablation_update(
    theta: tuple[Array | None, Array | None],
    carry: LSTMAblationCarry,
    z: Array,
    u: Array,
    *,
    name: str,
) -> LSTMAblationCarry:
    """The elementwise part of `lstm_ablation_step`, of z = x W + b and u = h U, (*B, G, H).

    In "fgr" the products with the gates before are a part of it too.
    """
    (peephole, w_gates), c = theta, carry.c
    a = dict(zip(GATES[name], sums(z, u), strict=True))
    if w_gates is not None:
        of_gates = jnp.einsum("...kh,khjo->...jo", carry.gates, w_gates)
        a |= {gate: a[gate] + of_gates[..., n, :] for n, gate in enumerate("ifo")}
    eyes = [gate for gate in GATES[name] if gate != "g"]
    p = dict.fromkeys(eyes, 0.0) if peephole is None else dict(zip(eyes, peephole, strict=True))
    gate = lambda name, c: sigmoid(a[name] + p[name] * c)
    i = jnp.ones_like(c) if name == "nig" else gate("i", c)
    f = 1 - i if name == "cifg" else jnp.ones_like(c) if name == "nfg" else gate("f", c)
    i, f = named(i=i, f=f)
    c = f * c + i * named(g=a["g"] if name == "niaf" else tanh(a["g"]))[0]
    (o,) = named(o=jnp.ones_like(c) if name == "nog" else gate("o", c))
    h = o * (c if name == "noaf" else tanh(c))
    return LSTMAblationCarry(c, h, jnp.stack([i, f, o], -2) if name == "fgr" else None)


def lstm_ablation_step(
    params: LSTMAblationParams, carry: LSTMAblationCarry, x: Array, name: str
) -> tuple[LSTMAblationCarry, Array]:
    """One step of a variant of the LSTM with peepholes, `jaxlstm.lstm_step`.

        nig   i = 1                       no input gate
        nfg   f = 1                       no forget gate
        nog   o = 1                       no output gate
        niaf  g = x W_g + h U_g + b_g     no input activation function
        noaf  h' = o ⊙ c'                 no output activation function
        np    p = 0                       no peepholes
        cifg  f = 1 - i                   coupled input and forget gate
        fgr   i, f and o see i, f and o of the step before, through nine more matrices:
              full gate recurrence

    All but "np" have peepholes, as in the paper; `params._replace(peephole=None)` has none.

    Args:
      params: the weights.
      carry: the states before, c and h (*B, H), and in "fgr" the gates.
      x: (*B, D) floating point.
      name: of the variant.

    Returns:
      The states after, in the dtypes of those before, and h' (*B, H).

    Raises:
      ValueError: if x or the carry does not fit the params, or there is no such variant.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlstm import LSTMAblationCarry, init_lstm_ablation, lstm_ablation_step
      >>> params = init_lstm_ablation(jax.random.key(0), features=3, hidden=4, name="nog")
      >>> carry = LSTMAblationCarry(c=jnp.zeros(4), h=jnp.zeros(4), gates=None)
      >>> lstm_ablation_step(params, carry, jnp.ones(3), "nog")[1].shape
      (4,)

    References:
      Greff, Srivastava, Koutník, Steunebrink and Schmidhuber 2015, LSTM: A search space
      odyssey, arXiv:1503.04069, section III-B.
    """
    _check_name(name)
    known = len(GATES[name])
    check(len(params.b) == known, "params", f"the {known} gates of {name!r}", len(params.b))
    for what, part in (("params.w_gates", params.w_gates), ("carry.gates", carry.gates)):
        expected = "an array" if name == "fgr" else "None"
        check((part is None) == (expected == "None"), what, f"{expected} in {name!r}", type(part))
    return gated_step(partial(lstm_ablation_update, name=name), _split(params), carry, x)


def _check_name(name: str) -> None:
    check(name in GATES, "name", f"one of {list(GATES)}", repr(name))


def _split(params: LSTMAblationParams) -> Weights:
    return Weights(params.w_x, params.w_h, params.b, (params.peephole, params.w_gates))


@cell
def lstm_ablation(hidden: int, name: str) -> Parts:
    """A variant of the LSTM with peepholes: `lstm_ablation_step` as a `Cell`.

    Args:
      hidden: H, the size of the states.
      name: `"nig"`, `"nfg"`, `"nog"`, `"niaf"`, `"noaf"`, `"np"`, `"cifg"` or `"fgr"`.

    Returns:
      A Cell with params `LSTMAblationParams`, carry `LSTMAblationCarry` and output h (*B, H).
      Params are in the dtype of the x that `init` is given; with half precision c is float32.
      "fgr" runs by `lax.scan` of its step.

    Raises:
      ValueError: if `hidden` is not a positive integer, or there is no such variant.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> cell, xs = jl.lstm_ablation(64, "cifg"), jnp.ones((10, 3))
      >>> jl.scan(cell, cell.init(jax.random.key(0), xs[0]), xs)[1].shape
      (10, 64)

    References:
      See `lstm_ablation_step`.
    """
    check_size(hidden, "hidden")
    _check_name(name)

    def init(key, x):
        check_floating(x, "x")
        return init_lstm_ablation(key, x.shape[-1], hidden, name, dtype=x.dtype)

    def initial_carry(params, x, key=None):
        dtype, wide = state_dtypes(params, x)
        zeros = lambda dtype, *gates: jnp.zeros((*x.shape[:-1], *gates, hidden), dtype)
        return LSTMAblationCarry(zeros(wide), zeros(dtype), zeros(wide, 3) if fgr else None)

    fgr = name == "fgr"
    step = partial(lstm_ablation_step, name=name)
    update = partial(lstm_ablation_update, name=name)
    return init, initial_carry, step, None if fgr else GatedUnroll(update, _split)
