"""What an update passes back, with all that is known of it before the loop in one factor.

The cotangents that a step passes back are linear in those that come to it: of an elementwise
update, sums of products of one with numbers that the forward sweep has left. Here these numbers
are multiplied with each other, for a whole block at once, so that the loop reads fewer of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxlstm.base import vary_alike

STILL = ("broadcast_in_dim", "pvary")  # what makes zeros of zeros, the latter under shard_map


class Product(NamedTuple):
    """A factor (T, B, H), None for 1, times a cotangent (B, H) of each step.

    Cotangents are known by their place in a list. Where there are gates, a factor (T, B, G, H)
    times the cotangent of each gate.
    """

    factor: Any
    of: int | tuple[int, ...]


class Zero(NamedTuple):
    """What is zero whatever the cotangents are."""

    array: Any


class Unknown(Exception):
    """An operation on a product that is none of `_Sums`'s."""


def reassociated(pulls: Any, cotangents: Any) -> tuple[Any, Callable[[Any, Any], Any]] | None:
    """What a loop is to read in order to pull cotangents back, and how it does.

    Args:
      pulls: the vjp functions of a block's steps, leaves (T, B, ...).
      cotangents: of what one step gives, leaves (B, ...).

    Returns:
      Arrays (T, B, ...), and a function of one step's and of cotangents, which gives what the
      step's vjp function does; None if there is more to this than products and sums.
    """
    known, of_pulls = jax.tree.flatten(pulls)
    if not known or any(a.ndim != 2 for a in jax.tree.leaves(cotangents)):
        return None
    many = jax.tree.map(lambda a: jnp.broadcast_to(a, (known[0].shape[0], *a.shape)), cotangents)
    each = jax.vmap(lambda known, g: jax.tree.unflatten(of_pulls, known)(g))
    traced, shapes = jax.make_jaxpr(each, return_shape=True)(known, many)
    sums = _Sums(len(jax.tree.leaves(cotangents)))
    try:
        outs = sums.through(traced.jaxpr, traced.consts, [*known, *sums.given])
    except Unknown:
        return None
    if not all(isinstance(out, Product | Zero) for out in outs):
        return None  # a derivative of one's own, that is not linear
    outs = [None if isinstance(out, Zero) else out for out in outs]
    factor = lambda product: product.factor
    factors = jax.tree.map(factor, (sums.terms, outs), is_leaf=lambda a: isinstance(a, Product))
    shapes, of_shapes = jax.tree.flatten(shapes)

    def pull(factors, cotangents):
        of_terms, of_outs = factors
        values = jax.tree.leaves(cotangents)
        for (a, b), (of_a, of_b) in zip(sums.terms, of_terms, strict=True):
            values.append(_product(values, a, of_a) + _product(values, b, of_b))
        back = [
            _product(values, *out) if out[0] else jnp.zeros(like.shape[1:], like.dtype)
            for *out, like in zip(outs, of_outs, shapes, strict=True)
        ]
        return jax.tree.unflatten(of_shapes, vary_alike((back, cotangents))[0])

    return factors, pull


def _product(values, product, factor):
    """At one step, whose factor is given."""
    of = product.of
    if isinstance(of, int):
        value = values[of]
    elif len(set(of)) == 1 and factor is not None:
        value = values[of[0]][..., None, :]
    else:
        gates = jnp.concatenate([values[n] for n in of], -1)  # flat, of which XLA makes copies
        value = gates.reshape(*gates.shape[:-1], len(of), gates.shape[-1] // len(of))
    return value if factor is None else factor * value


class _Sums:
    """Takes products through a jaxpr; where two of different cotangents meet, a sum begins."""

    def __init__(self, given: int):
        self.given = [Product(None, n) for n in range(given)]
        self.terms: list[tuple[Product, Product]] = []  # of each sum, whose places are the next
        self.rules: dict[str, Callable[..., list[Any]]] = {
            "add_any": self._add,
            "mul": self._mul,
            "div": self._div,
            "neg": self._neg,
            "select_n": self._select,
            "broadcast_in_dim": self._broadcast,
            "concatenate": self._concatenate,
            "unstack": self._unstack,
        }

    def through(self, jaxpr: Jaxpr, consts: Any, operands: Any) -> list[Any]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *operands], strict=True))
        read = lambda v: _constant(v.val) if isinstance(v, Literal) else known[v]
        for equation in jaxpr.eqns:
            outs = self._apply(equation, [read(v) for v in equation.invars])
            known.update(zip(equation.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _apply(self, equation: JaxprEqn, operands: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if name == "jit":
            return self.through(params["jaxpr"].jaxpr, params["jaxpr"].consts, operands)
        if name.startswith("custom_"):  # a call of functions that are in its params
            raise Unknown(name)
        if not any(isinstance(a, Product) for a in operands):
            arrays = [a.array if isinstance(a, Zero) else a for a in operands]
            outs = equation.primitive.bind(*arrays, **params)
            if name in STILL and isinstance(operands[0], Zero):
                return [Zero(outs)]
            return outs if equation.primitive.multiple_results else [outs]
        if name not in self.rules:
            raise Unknown(name)
        return self.rules[name](equation.outvars[0].aval, params, *operands)

    def _add(self, out, params, a, b):
        if isinstance(a, Zero) or isinstance(b, Zero):
            return [a if isinstance(b, Zero) else b]
        if not (isinstance(a, Product) and isinstance(b, Product)):
            raise Unknown("a sum with what is no cotangent")
        if a.of == b.of:
            return [Product(_factor(a, out) + _factor(b, out), a.of)]
        if not isinstance(a.of, int):
            raise Unknown("a sum over gates")
        self.terms.append((a, b))
        return [Product(None, len(self.given) + len(self.terms) - 1)]

    def _mul(self, out, params, a, b):
        product, number = (a, b) if isinstance(a, Product) else (b, a)
        if isinstance(number, Product | Zero):
            raise Unknown("a product of cotangents")
        one = product.factor is None
        number = jnp.broadcast_to(number, out.shape) if one else number
        return [Product(number if one else product.factor * number, product.of)]

    def _div(self, out, params, a, b):
        if isinstance(b, Product | Zero):
            raise Unknown("a division by a cotangent")
        return self._mul(out, params, a, 1 / b)

    def _neg(self, out, params, a):
        return [Product(-_factor(a, out), a.of)]

    def _select(self, out, params, which, *cases):
        of = {case.of for case in cases if isinstance(case, Product)}
        if len(of) != 1 or not all(isinstance(a, Product | Zero) for a in cases):
            raise Unknown("a choice of cotangents")
        factors = (_factor(a, out) if isinstance(a, Product) else a.array for a in cases)
        return [Product(lax.select_n(which, *factors), of.pop())]

    def _broadcast(self, out, params, a):
        """To one gate."""
        if params["broadcast_dimensions"] != (0, 1, 3) or out.shape[2] != 1:
            raise Unknown("a broadcast")
        return [Product(None if a.factor is None else a.factor[:, :, None], (a.of,))]

    def _concatenate(self, out, params, *parts):
        """Of gates."""
        if params["dimension"] != 2 or out.ndim != 4:
            raise Unknown("a concatenation")
        if not all(isinstance(a, Product | Zero) for a in parts):
            raise Unknown("a concatenation with what is no cotangent")
        any_of = next(a.of[0] for a in parts if isinstance(a, Product))
        zeros = lambda a: Product(a, (any_of,) * a.shape[2])
        products = [zeros(a.array) if isinstance(a, Zero) else a for a in parts]
        factors = [_factor(a, out) for a in products]
        return [Product(_gates(factors), sum((a.of for a in products), ()))]

    def _unstack(self, out, params, a):
        """Into gates."""
        if params["axis"] != 2 or isinstance(a.of, int):
            raise Unknown("an unstacking")
        of_gate = lambda n: None if a.factor is None else a.factor[:, :, n]
        return [Product(of_gate(n), of) for n, of in enumerate(a.of)]


def _gates(parts):
    """Side by side: what `concatenate` is, of which XLA makes one slow loop with the parts."""
    if len(parts) == 1:
        return parts[0]
    gates = sum(part.shape[2] for part in parts)
    shape = (*parts[0].shape[:2], gates, *parts[0].shape[3:])
    whole, at = jnp.zeros(shape, parts[0].dtype), 0
    for part in parts:
        whole = lax.dynamic_update_slice_in_dim(whole, part, at, 2)
        at += part.shape[2]
    return whole


def _constant(value):
    number = jnp.ndim(value) == 0 and jnp.issubdtype(jnp.result_type(value), jnp.floating)
    return Zero(jnp.asarray(value)) if number and value == 0 else value


def _factor(product, out):
    """As an array, of an output's shape but for the number of gates."""
    if product.factor is not None:
        return product.factor
    gates = () if isinstance(product.of, int) else (len(product.of),)
    return jnp.ones((*out.shape[:2], *gates, *out.shape[-1:]), out.dtype)
