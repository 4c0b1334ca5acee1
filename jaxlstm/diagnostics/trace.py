"""Every gate, candidate and state of a recurrent network over time."""

from typing import Any, NamedTuple

from jaxlstm.base import Array, Carry, Cell, Layer, Params
from jaxlstm.diagnostics import taps


class Trace(NamedTuple):
    """What a network computed, over time, in arrays (T, *B, ...) under their names.

    A name is the path to a cell in the carry, and what it is there: "f" of a lone `lstm`, "1.f"
    of the second layer of a stack, "0.forward.f" and "0.backward.f" of a stacked bidirectional
    network. Zero where a step is not valid.
    """

    gates: dict[str, Array]  # i, f, o of an LSTM, r, z of a GRU, ...
    candidates: dict[str, Array]  # g of an LSTM, n of a GRU, before they are let in
    states: dict[str, Array]  # each field of the carry, after the step: c, h, ...
    valid: dict[str, Array | None]  # (T, *B) booleans under all of these names; None if all are
    carry: Carry  # after each sequence's last step, as `scan` or `apply` gives it
    ys: Any  # the outputs, as `scan` or `apply` gives them


def trace(
    cell: Cell | Layer,
    params: Params,
    xs: Any,
    carry: Carry | None = None,
    *,
    key: Array | None = None,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
) -> Trace:
    """Runs a network over a sequence and keeps all that it computes on the way.

    The values are those of the step's own program, read where they are made: what a cell's family
    names as its gates (`jaxlstm.gates.named`), and the carry it hands on. So a wrapper shows what
    it does: with `zoneout` the states are those after it. A cell that names no gates, as `elman`
    or one of your own, has its states and outputs; so has a gate within a loop of a step. The
    network itself, and how it is trained, are as ever; this runs by `lax.scan` of its step.

    The sLSTM's and the mLSTM's i and f are exponentials: they are given as `log_i` and `log_f`.
    Dropout masks and an attention's memory, Persistent in the carry, are not shown; an attention's
    weights are in its output.

    Args:
      cell: a Cell, or a Layer of which every cell is run by `jaxlstm.scan` with the
        `implementation` that the Layer is given, as it is in all of this library.
      params: its params.
      xs: (T, *B, D), time first; or a pytree of such arrays, if the cell takes one.
      carry: before the first step; by default the initial one.
      key: a PRNG key for an initial carry that needs one.
      lengths: (*B,) integers in [0, T]: how many steps each sequence has.
      mask: (T, *B) booleans; False skips a step.
      resets: (T, *B) booleans; True puts the initial carry in before that step.

    Returns:
      A `Trace`, a pytree that `jit` may return and a loss may use.

    Raises:
      ValueError: if `cell` is neither Cell nor Layer, or a Layer does not hand `implementation`
        on; or as `jaxlstm.scan` does.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.diagnostics import trace
      >>> both = jl.bidirectional(jl.lstm(8), jl.lstm(8))
      >>> deep, xs = jl.stack(both, jl.gru(4)), jnp.ones((5, 2, 3))
      >>> seen = trace(deep, deep.init(jax.random.key(0), xs[0]), xs)
      >>> list(seen.gates)[:4], seen.gates["1.z"].shape, seen.states["0.backward.c"].shape
      (['0.forward.f', '0.forward.i', '0.forward.o', '0.backward.f'], (5, 2, 4), (5, 2, 8))

      The weights of an attention over a memory of seven positions:

      >>> decoder = jl.attention(jl.gru(8), "general", memory=6, size=5)
      >>> params = decoder.init(jax.random.key(0), xs[0])
      >>> start = jl.attend(decoder, params, xs[0], jnp.ones((7, 2, 6)))
      >>> trace(decoder, params, xs, start).ys.weights.shape
      (5, 2, 7)

    References:
      Karpathy, Johnson and Fei-Fei 2016, Visualizing and understanding recurrent networks,
      arXiv:1506.02078.
    """
    options = dict(key=key, lengths=lengths, mask=mask, resets=resets)
    tree, ys = taps.follow(cell, params, xs, carry, options)
    shown = Trace({}, {}, {}, {}, last_carry(tree), ys)
    for place, seen in taps.by_name(tree):
        for kind, values in seen.values._asdict().items():
            for name, value in values.items():
                getattr(shown, kind)[place + name] = value
                shown.valid[place + name] = seen.valid
    return shown


def last_carry(tree: Any) -> Carry:
    """The last carry, of `taps.follow`'s tree."""
    return taps.map_seen(lambda seen: seen.carry, tree)
