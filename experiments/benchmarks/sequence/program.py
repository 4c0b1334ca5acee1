"""A contender ready to be called, and the making of those that are JAX functions."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.sequence.cases import Case, Given


class Program(NamedTuple):
    call: Callable[[], Any]  # waits for its result
    arrays: Callable[[Any], dict[str, np.ndarray]]  # of a result, time first, in our layout
    compile: Callable[[], float] | None = None  # compiles it afresh; the seconds that it took
    compile_seconds: float | None = None  # those of the first time


def named(loss: Any, params: Any, xs: Any) -> dict[str, np.ndarray]:
    """The results of forward + gradient, by name: gradients to our params and to xs."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    name = lambda path: f"d {jax.tree_util.keystr(path, simple=True, separator='.')}"
    gradients = {name(path): np.asarray(leaf) for path, leaf in leaves}
    return {"loss": np.asarray(loss), **gradients, "d xs": np.asarray(xs)}


def valid(lengths: Any, time: int) -> Any:
    """(T, B, 1) booleans."""
    return (jnp.arange(time)[:, None] < lengths)[..., None]


def transposed(write: Callable[[Any], Any], params: Any) -> Callable[[Any], Any]:
    """From gradients of `write(params)`, the weights of another library, to those of params.

    The weights' gradients go where the weights came from: constants that `write` adds, biases
    that it fills with zeros, count for nothing.
    """
    return lambda gradients: jax.vjp(write, params)[1](gradients)[0]


def jax_program(
    case: Case,
    given: Given,
    function: Callable[..., Any],
    weights: Any,
    back: Callable[[Any], Any],
    *,
    batch_first: bool = False,
    put: Callable[[Any, Any], tuple[Any, ...]] | None = None,
) -> Program:
    """The program of `function(weights, xs, lengths) -> ys`, or of its loss and gradients.

    Args:
      case: what is measured.
      given: its xs and lengths.
      function: to be compiled; ys are zero at steps that are not valid.
      weights: its own.
      back: from gradients of its weights to those of our params.
      batch_first: whether xs and ys have the batch before time.
      put: places xs and lengths on devices.
    """
    swap = lambda a: np.swapaxes(a, 0, 1) if batch_first else a
    xs, lengths = np.ascontiguousarray(swap(given.xs)), given.lengths
    xs, lengths = put(xs, lengths) if put else jax.tree.map(jnp.asarray, (xs, lengths))

    def loss(weights, xs, lengths):
        return jnp.sum(jnp.square(function(weights, xs, lengths)))

    run = jax.value_and_grad(loss, (0, 1)) if case.gradient else function

    def arrays(result):
        if not case.gradient:
            return {"ys": swap(np.asarray(result))}
        value, (of_weights, of_xs) = result
        return named(value, back(of_weights), swap(np.asarray(of_xs)))

    arguments = (weights, xs, lengths)
    compiled, seconds = _compile(run, arguments)
    call = lambda: jax.block_until_ready(compiled(*arguments))
    return Program(call, arrays, lambda: _compile(run, arguments)[1], seconds)


def jax_step(
    step: Callable[..., Any], weights: Any, given: Given, *, donate: bool = False
) -> Program:
    """The program of `step(weights, carry, x) -> carry`, each call from the carry before.

    Args:
      step: to be compiled; its carry is (c, h).
      weights: its own.
      given: its x and first carry.
      donate: whether a call may write over the carry that it is given.
    """
    carry, x = jax.tree.map(jnp.array, (given.carry, given.xs[0]))
    state = [weights, (carry.c, carry.h), x]
    arrays = lambda carry: {name: np.asarray(a) for name, a in zip("ch", carry, strict=True)}
    make = partial(_compile, step, state, donate_argnums=(1,) if donate else ())
    compiled, seconds = make()

    def call():
        state[1] = jax.block_until_ready(compiled(*state))
        return state[1]

    return Program(call, arrays, lambda: make()[1], seconds)


def _compile(run, arguments, **options):
    """Compiled with nothing left from before, and the seconds that it took."""
    jax.clear_caches()
    began = time.perf_counter()
    compiled = jax.jit(run, **options).lower(*arguments).compile()
    return compiled, time.perf_counter() - began
