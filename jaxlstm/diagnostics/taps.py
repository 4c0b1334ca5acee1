"""What a cell's step computes on its way, read and moved within the very program of the step.

There is no second definition of any cell here. The step is traced to a jaxpr, in which the
states are what goes into the carry, and the gates what `jaxlstm.gates.named` marks. The jaxpr is
evaluated equation by equation; each of these values is recorded where it is made, and, for
gradients, a perturbation is added to it there, before anything else in the step reads it.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, Var

from jaxlstm import sequence
from jaxlstm.base import Array, Carry, Cell, Layer, Params, Persistent
from jaxlstm.checks import check
from jaxlstm.gates import NAMED

CANDIDATES = ("g", "n")  # the last part of such a name; all other named values are gates


class Values(NamedTuple):
    """Arrays of one step, or of all steps (T, *B, ...), under their names."""

    gates: dict[str, Array]
    candidates: dict[str, Array]
    states: dict[str, Array]


class Seen(NamedTuple):
    """What was seen of one cell's scan; stands where a Layer has that cell's last carry."""

    carry: Carry  # the last one
    values: Values  # (T, *B, ...), zero where a step is not valid
    valid: Array | None  # (T, *B) booleans; None if all are


class Start(NamedTuple):
    """What to begin a cell's scan with; stands where a Layer has that cell's first carry."""

    carry: Carry | None
    moves: Values | None  # added to the values where they are made


def follow(
    cell: Cell | Layer, params: Params, xs: Any, start: Any, options: dict[str, Any]
) -> tuple[Any, Any]:
    """A scan that sees: a tree with a `Seen` for each cell, and ys.

    `start` is None, or a tree with a `Start` for each cell. A stack of Cells is one Cell.
    """
    check(isinstance(cell, Cell | Layer), "cell", "a Cell or a Layer", repr(cell))
    options = {name: value for name, value in options.items() if value is not None}
    if isinstance(cell, Cell):
        return sequence.scan(cell, params, xs, start, implementation=_scan, **options)
    tree, ys = cell.apply(params, xs, start, implementation=_scan, **options)
    found = jax.tree.leaves(tree, is_leaf=is_seen)
    hands_on = bool(found) and all(map(is_seen, found))
    check(hands_on, "cell", "a Layer that hands `implementation` on to each scan in it", cell)
    return tree, ys


def is_seen(value: Any) -> bool:
    """Whether a node of `follow`'s tree is a leaf of it."""
    return isinstance(value, Seen)


def by_name(tree: Any) -> Iterator[tuple[str, Seen]]:
    """The `Seen` of each cell in `follow`'s tree, with the path to it: "", "0." or "1.forward."."""
    for path, seen in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_seen):
        yield "".join(f"{part}." for part in _parts(path)), seen


def map_seen(function: Callable[[Seen], Any], tree: Any) -> Any:
    """`function` of each `Seen` in `follow`'s tree."""
    return jax.tree.map(function, tree, is_leaf=is_seen)


def state_names(carry: Carry) -> list[str | None]:
    """The name of each leaf of a carry, its path; None for what is Persistent.

    What wraps a cell holds its carry in a field `carry`, which is left out of the path.
    """
    names: list[str | None] = []
    leaves = jax.tree_util.tree_leaves_with_path(carry, is_leaf=_is_persistent)
    for path, leaf in leaves:
        if _is_persistent(leaf):
            names += [None] * len(jax.tree.leaves(leaf))
        else:
            names.append(".".join(_parts(path)) or "carry")
    return names


def _is_persistent(leaf):
    return isinstance(leaf, Persistent)


def _parts(path):
    parts = [str(getattr(k, "name", getattr(k, "idx", getattr(k, "key", k)))) for k in path]
    return [part for part in parts if part != "carry"]


def _scan(cell, params, xs, start, **options):
    carry, moves = start if isinstance(start, Start) else (start, None)
    run = functools.partial(sequence.scan, _tapped(cell), params, (xs, moves), carry)
    carry, (ys, values) = run(implementation="reference", **options)
    lengths, mask, valid = options["lengths"], options["mask"], None
    if lengths is not None or mask is not None:
        batch = mask.shape[1:] if lengths is None else lengths.shape
        steps = jnp.ones((jax.tree.leaves(xs)[0].shape[0], *batch), bool)
        valid = sequence.valid_steps(steps, lengths, mask)
    return Seen(carry, values, valid), ys


@functools.lru_cache(maxsize=256)  # one cell of one: `scan` tells them apart by identity
def _tapped(cell):
    """The cell, of inputs (x, moves) and outputs (y, values)."""

    def initial_carry(params, x, key=None):
        return cell.initial_carry(params, x[0], key)

    def step(params, carry, x):
        return _tap(cell.step, params, carry, *x)

    return Cell(cell.init, initial_carry, step, name=f"{cell}, tapped")


def _tap(step, params, carry, x, moves):
    """A step's carry, and its output together with the values on the way to it."""
    jaxpr, consts, leaves, shapes = _program(step, params, carry, x)
    names = _names(jaxpr, state_names(shapes[0]))
    values, moved = Values({}, {}, {}), {}

    def visit(var, value):
        for kind, name in names.get(var, ()) if var not in moved else ():
            getattr(values, kind)[name] = value
        if var not in moved:
            add = [getattr(moves, kind).get(name) for kind, name in names.get(var, ()) if moves]
            moved[var] = sum((a for a in add if a is not None), start=value)
        return moved[var]

    outs = _evaluate(jaxpr, consts, leaves, visit)
    outs = [
        visit(v, a) if isinstance(v, Var) else a for v, a in zip(jaxpr.outvars, outs, strict=True)
    ]
    carry, y = jax.tree.unflatten(jax.tree.structure(shapes), outs)
    return carry, (y, values)


def _program(step, *arguments):
    """The jaxpr of a step without calls in it, its constants, its inputs, its outputs' shapes."""
    leaves = jax.tree.leaves(arguments)
    called, shapes = jax.make_jaxpr(step, return_shape=True)(*arguments)
    flat = lambda *leaves: _evaluate(called.jaxpr, called.consts, leaves)
    closed = jax.make_jaxpr(flat)(*leaves)
    return closed.jaxpr, closed.consts, leaves, shapes


def _evaluate(jaxpr, consts, leaves, visit=lambda var, value: value):
    """The outputs of a jaxpr, with what `visit` makes of each value in its place."""
    env = dict(zip(jaxpr.constvars, consts, strict=True))
    env |= zip(jaxpr.invars, leaves, strict=True)
    read = lambda v: v.val if isinstance(v, Literal) else env[v]
    for eqn in jaxpr.eqns:
        ins = list(map(read, eqn.invars))
        if eqn.primitive.name in ("jit", "pjit"):
            inner = eqn.params["jaxpr"]
            outs = _evaluate(inner.jaxpr, inner.consts, ins)
        else:
            outs = eqn.primitive.bind(*ins, **eqn.primitive.get_bind_params(eqn.params))
            outs = outs if eqn.primitive.multiple_results else [outs]
        env |= {v: visit(v, a) for v, a in zip(eqn.outvars, outs, strict=True)}
    return list(map(read, jaxpr.outvars))


def _names(jaxpr, states):
    """Kinds and names of each variable; a gate's begins as that of the first state made of it."""
    names = {}
    for var, name in zip(jaxpr.outvars, states, strict=False):  # outputs follow the carry
        if name is not None and isinstance(var, Var):
            names.setdefault(var, []).append(("states", name))
    taken = set()
    for at, eqn in enumerate(jaxpr.eqns):
        label = eqn.params.get("name")
        if eqn.primitive.name == "name" and label.startswith(NAMED):
            name = _place(jaxpr.eqns[at + 1 :], eqn.outvars[0], names) + label[len(NAMED) :]
            while name in taken:  # the same name twice in one cell
                name += "'"
            taken.add(name)
            kind = "candidates" if label[len(NAMED) :].split("_")[-1] in CANDIDATES else "gates"
            names.setdefault(eqn.outvars[0], []).append((kind, name))
    return names


def _place(eqns, var, names):
    reached = {var}
    for eqn in eqns:
        if any(isinstance(v, Var) and v in reached for v in eqn.invars):
            reached.update(eqn.outvars)
            states = [n for v in eqn.outvars for kind, n in names.get(v, ()) if kind == "states"]
            if states:
                return states[0][: states[0].rfind(".") + 1]
    return ""
