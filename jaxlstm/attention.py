"""Attention: a cell around a cell that reads a memory, such as the outputs of an encoder."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm import sequence
from jaxlstm.base import Array, Carry, Cell, Params, Persistent, cell, select
from jaxlstm.checks import check, check_floating, check_shape, check_size, describe, is_concrete
from jaxlstm.gated import state_dtypes
from jaxlstm.kernels.recurrence import accumulator, project

KINDS = ("additive", "dot", "general", "concat", "location")


class AttentionParams(NamedTuple):
    bare: Params  # of the cell inside, whose inputs are x and what attention adds to it
    w_q: Array | None  # (H, A) additive, concat; (H, P) location; else None
    w_k: Array | None  # (M, A) additive, concat; (M, H) general; else None
    v: Array | None  # (A,) additive, concat; else None
    w_c: Array | None  # (M + H, A)  of the context and h side by side; None for additive


class Memory(NamedTuple):
    values: Array  # (*B, S, M)  zero where the mask is False
    keys: Array | None  # (*B, S, A or H)  values W_k, computed once; None where there is no W_k
    mask: Array | None  # (*B, S) booleans; None for True everywhere


class AttentionCarry(NamedTuple):
    carry: Carry  # of the cell inside
    fed: Array | None  # (*B, A)  the attentional vector before; None without input feeding
    memory: Persistent  # Memory, the same for the whole run and across resets


class Attended(NamedTuple):
    output: Array  # (*B, A) the attentional vector; for additive the output of the cell inside
    weights: Array  # (*B, S)  zero where the memory's mask is False; at least float32
    context: Array  # (*B, M)  the sum of the values by these weights


class AttentionUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` where nothing is fed back: the cell inside first, then one look."""

    bare: Cell
    look: Callable[..., Attended]

    def __call__(self, params, carry, xs, *, valid, resets, initial, implementation):
        initial = None if initial is None else initial.carry
        run = partial(sequence.unroll, valid=valid, resets=resets, initial=initial)
        inner, ys = run(self.bare, params.bare, carry.carry, xs, implementation=implementation)
        return carry._replace(carry=inner), self.look(params, carry.memory.value, ys)

    def explain(self, params, xs):
        return self.bare.unroll.explain(params.bare, xs)


def attend(
    cell: Cell,
    params: AttentionParams,
    x: Any,
    memory: Array,
    *,
    lengths: Any = None,
    mask: Any = None,
    carry: Carry | None = None,
    key: Array | None = None,
) -> AttentionCarry:
    """The carry to begin with of an `attention` cell that is to read a memory.

    The keys, memory times W_k, are computed here, once for the run. What the memory holds at a
    position that is masked or behind its length, NaN included, reaches no value and no gradient.

    Args:
      cell: the cell, made by `attention`.
      params: its params.
      x: one step of its input, (*B, D), an array or a `jax.ShapeDtypeStruct`.
      memory: (S, *B, M) floating point, time first as `scan` gives an encoder's outputs.
      lengths: (*B,) integers in [0, S]: how many positions each memory has. Values that can't
        be looked at, under `jit`, count as the nearest one in that range.
      mask: (S, *B) booleans; False hides a position.
      carry: of the cell inside, as an encoder's last one; by default its initial one.
      key: a PRNG key for a cell inside that draws something.

    Returns:
      The carry, to be given to `scan` or to `cell.step`.

    Raises:
      ValueError: if an argument does not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> decoder, xs = jl.attention(jl.gru(8), "general", memory=6, size=5), jnp.ones((4, 2, 3))
      >>> params = decoder.init(jax.random.key(0), xs[0])
      >>> carry = jl.attend(decoder, params, xs[0], jnp.ones((7, 2, 6)), lengths=jnp.array([7, 2]))
      >>> carry, ys = jl.scan(decoder, params, xs, carry)
      >>> ys.output.shape, ys.weights.shape, bool((ys.weights[:, 1, 2:] == 0).all())
      ((4, 2, 5), (4, 2, 7), True)
    """
    start = cell.initial_carry(params, x, key)
    check(isinstance(start, AttentionCarry), "cell", "one made by attention", repr(cell))
    check_floating(memory, "memory")
    *batch, _, features = start.memory.value.values.shape
    fits = memory.shape[1:] == (*batch, features) and memory.shape[0] > 0
    expected = f"shape (S, {', '.join(map(str, (*batch, features)))}) with S > 0"
    check(fits, "memory", expected, describe(memory))
    seen = _seen(memory.shape[:-1], lengths, mask)
    memory = select(seen, memory, jnp.zeros_like(memory))
    values = jnp.moveaxis(memory, 0, -2).astype(start.memory.value.values.dtype)
    keys = None if params.w_k is None else project(values, params.w_k).astype(values.dtype)
    seen = None if seen is None else jnp.moveaxis(seen, 0, -1)
    carry = start.carry if carry is None else carry
    return start._replace(carry=carry, memory=Persistent(Memory(values, keys, seen)))


def _seen(shape, lengths, mask):
    """Which positions (S, *B) are to be seen; None for all."""
    if mask is not None:
        mask = jnp.asarray(mask)
        fits = mask.dtype == bool and mask.shape == shape
        check(fits, "mask", f"booleans of shape {shape}, as memory has it", describe(mask))
    if lengths is None:
        return mask
    lengths = np.asarray(lengths) if is_concrete(lengths) else lengths
    fits = jnp.issubdtype(lengths.dtype, jnp.integer) and lengths.shape == shape[1:]
    check(fits, "lengths", f"integers of shape {shape[1:]}, as memory has it", describe(lengths))
    if is_concrete(lengths):
        low, high = lengths.min(initial=0), lengths.max(initial=0)
        check(low >= 0 and high <= shape[0], "lengths", f"values in [0, {shape[0]}]", lengths)
    within = jnp.arange(shape[0]).reshape(-1, *(1,) * lengths.ndim) < lengths
    return within if mask is None else within & mask


def _additive(params, memory, q):
    hidden = jnp.tanh(project(q, params.w_q)[..., None, :] + memory.keys)
    return project(hidden, params.v)


def _product(params, memory, q):
    keys = memory.values if memory.keys is None else memory.keys
    dtype = accumulator(jnp.result_type(q, keys))
    return jnp.einsum("...h,...sh->...s", q, keys, preferred_element_type=dtype)


def _location(params, memory, q):
    size, most = memory.values.shape[-2], params.w_q.shape[1]
    check(size <= most, "memory", f"at most {most} positions, as params.w_q has", size)
    return project(q, params.w_q)[..., :size]


SCORES = dict(zip(KINDS, (_additive, _product, _product, _additive, _location), strict=True))


def _read(kind, params, memory, q):
    """Weights (*B, S) and context (*B, M) for a query (*B, H), which may have time before B."""
    scores = SCORES[kind](params, memory, q)
    seen = True if memory.mask is None else memory.mask
    weights = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min))
    weights = jnp.where(seen, weights, 0)  # all of them, if there is nothing to see
    values, dtype = memory.values, weights.dtype
    shares = weights.astype(values.dtype)
    context = jnp.einsum("...s,...sm->...m", shares, values, preferred_element_type=dtype)
    return weights, context.astype(q.dtype)


def _look(kind, params, memory, h):
    """What attention makes of the output h of the cell inside."""
    weights, context = _read(kind, params, memory, h)
    output = jnp.tanh(project(jnp.concatenate([context, h], -1), params.w_c))
    return Attended(output.astype(h.dtype), weights, context)


def _hidden(carry):
    """The h of a carry; of a stack's, that of its last layer."""
    if hasattr(carry, "h"):
        return carry.h
    inner = carry[-1] if type(carry) is tuple else getattr(carry, "carry", None)
    check(inner is not None, "bare", "a cell whose carry has a field h", repr(carry))
    return _hidden(inner)


@cell
def attention(
    bare: Cell,
    kind: str,
    *,
    memory: int,
    size: int,
    positions: int | None = None,
    feeding: bool = True,
) -> Cell:
    """A cell that reads a memory m (S, M) at each step.

    `"additive"` (Bahdanau et al.) reads before the step, with the h of the carry before it:

        e_s = v · tanh(h W_q + m_s W_k),   α = softmax(e),   context = Σ_s α_s m_s
        carry', y = step(carry, [x, context]);   the output is y

    The others (Luong et al.) read after it, with its output h', and the attentional vector h̃
    is part of the next step's input, which `feeding=False` leaves out:

        carry', h' = step(carry, [x, h̃])
        e_s = h' · m_s                        "dot"
        e_s = h' · (m_s W_k)                  "general"
        e_s = v · tanh(h' W_q + m_s W_k)      "concat"
        e_s = (h' W_q)_s                      "location"
        h̃' = tanh([context, h'] W_c);   the output is h̃'

    h̃ begins at zero. The memory is in the carry: begin with `attend`. Without feeding a sequence
    keeps the fast implementations of the bare cell. The softmax of "location" is over the
    memory's own positions, at most P (the paper takes it over P and cuts what is too long).

    Args:
      bare: the cell inside. For "additive" its carry has an h (of a stack, the last layer's);
        for the others its output is one array.
      kind: "additive", "dot", "general", "concat" or "location".
      memory: M, the size of what stands at a position of the memory.
      size: A, the size of h̃, and of the layer between in "additive" and "concat".
      positions: P, for "location" only.
      feeding: whether h̃ is fed back; "additive" has no h̃.

    Returns:
      A Cell with params `AttentionParams`, Glorot uniform but for the bare ones, carry
      `AttentionCarry` and outputs `Attended`. With half precision scores and weights are float32.

    Raises:
      ValueError: if an argument does not fit the kind; when params are made, if the sizes do
        not; at a step, if the carry holds no memory.

    Example:
      See `attend`.

    References:
      Bahdanau, Cho and Bengio 2015, arXiv:1409.0473, section 3.1 and appendix A.1.2; Luong, Pham
      and Manning 2015, arXiv:1508.04025, eq. 5, 7 and 8, and section 3.3.
    """
    check(isinstance(bare, Cell), "bare", "a Cell", repr(bare))
    check(kind in KINDS, "kind", f"one of {', '.join(map(repr, KINDS))}", repr(kind))
    check_size(memory, "memory")
    check_size(size, "size")
    if kind == "location":
        check_size(positions, "positions")
    else:
        check(positions is None, "positions", f"None for {kind!r}", repr(positions))
    additive, layered = kind == "additive", kind in ("additive", "concat")
    check(feeding or not additive, "feeding", "True for 'additive'", repr(feeding))
    more = memory if additive else size * feeding

    def widened(x, dtype):
        return jax.ShapeDtypeStruct((*x.shape[:-1], x.shape[-1] + more), dtype)

    def init(key, x):
        check_floating(x, "x")
        of_bare, *keys = jax.random.split(key, 5)
        x = widened(x, x.dtype)
        inner = bare.init(of_bare, x)
        before = jax.eval_shape(bare.initial_carry, inner, x, key)
        hidden = _hidden(before) if additive else jax.eval_shape(bare.step, inner, before, x)[1]
        check_floating(hidden, "output of bare")
        h = hidden.shape[-1]
        check(kind != "dot" or h == memory, "memory", f"{h} for 'dot', as bare's output", memory)
        glorot = jax.nn.initializers.glorot_uniform()
        draw = lambda n, *shape: None if None in shape else glorot(keys[n], shape, x.dtype)
        w_q = draw(0, h, size if layered else positions)
        w_k = draw(1, memory, size if layered else h if kind == "general" else None)
        v = draw(2, 1, size)[0] if layered else None
        return AttentionParams(inner, w_q, w_k, v, None if additive else draw(3, memory + h, size))

    def initial_carry(params, x, key=None):
        dtype, _ = state_dtypes(params, x)
        zeros = lambda *shape: jnp.zeros((*x.shape[:-1], *shape), dtype)
        inner = bare.initial_carry(params.bare, widened(x, dtype), key)
        keys = None if params.w_k is None else zeros(0, params.w_k.shape[1])
        fed = zeros(size) if feeding and not additive else None
        return AttentionCarry(inner, fed, Persistent(Memory(zeros(0, memory), keys, None)))

    def step(params, carry, x):
        seen = carry.memory.value
        many = seen.values.shape[-2]
        check(many > 0, "carry", "one made by attend", "one without a memory")
        check_shape(seen.values, (*x.shape[:-1], many, memory), "carry.memory", "as x has it")
        if additive:
            h = _hidden(carry.carry).astype(state_dtypes(params, x)[0])
            weights, context = _read(kind, params, seen, h)
            inner, y = bare.step(params.bare, carry.carry, jnp.concatenate([x, context], -1))
            return carry._replace(carry=inner), Attended(y, weights, context)
        x = x if carry.fed is None else jnp.concatenate([x, carry.fed], -1)
        inner, h = bare.step(params.bare, carry.carry, x)
        attended = look(params, seen, h)
        fed = None if carry.fed is None else attended.output.astype(carry.fed.dtype)
        return AttentionCarry(inner, fed, carry.memory), attended

    look = partial(_look, kind)
    fast = bare.unroll is not None and not feeding
    return Cell(init, initial_carry, step, AttentionUnroll(bare, look) if fast else None)
