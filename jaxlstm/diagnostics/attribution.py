"""Which inputs an output is due to."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlstm.base import Array
from jaxlstm.checks import check, check_floating, check_shape, check_size


def saliency(score: Callable[[Any], Array], xs: Any) -> Any:
    """How strongly a score depends on each number of an input.

        |∂score / ∂x|

    Args:
      score: `xs -> scalar`, as a logit; to explain each sequence of a batch by itself, the sum of
        their scores. For a model of tokens, a function of their embeddings.
      xs: (T, *B, D) floating point, or a pytree of such arrays.

    Returns:
      The absolute derivatives, in the shape and dtype of xs.

    Raises:
      ValueError: if the score is not a scalar, or xs not floating point.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.diagnostics import saliency
      >>> cell, xs = jl.lstm(8), jnp.ones((20, 2, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> last = lambda xs: jl.scan(cell, params, xs)[1][-1, :, 0].sum()
      >>> saliency(last, xs).shape
      (20, 2, 3)

    References:
      Simonyan, Vedaldi and Zisserman 2014, Deep inside convolutional networks, arXiv:1312.6034,
      section 3, before the largest of the channels is taken.
    """
    _check_input(xs)
    return jax.tree.map(jnp.abs, jax.grad(_scalar(score))(xs))


class IntegratedGradients(NamedTuple):
    attributions: Any  # in the shape of xs
    difference: Array  # score(xs) - score(baseline)
    gap: Array  # the attributions' sum less the difference: of quadrature and rounding, near 0


def integrated_gradients(
    score: Callable[[Any], Array], xs: Any, baseline: Any = None, *, steps: int = 32
) -> IntegratedGradients:
    """The parts of a score's difference from a baseline that each number of an input has.

        a = (x - x') ⊙ ∫_0^1 ∂score / ∂x (x' + α (x - x')) dα,   Σ a = score(x) - score(x')

    The integral by Gauss and Legendre's quadrature, which for smooth networks needs far fewer
    points than the paper's sum of 20 to 300; `gap` says how well the sum is the difference.

    Args:
      score: `xs -> scalar`, as for `saliency`.
      xs: x, (T, *B, D) floating point, or a pytree of such arrays.
      baseline: x', in the shape of xs; zeros by default.
      steps: how many points to take.

    Returns:
      An `IntegratedGradients`.

    Raises:
      ValueError: if the score is not a scalar, xs not floating point, the baseline of another
        shape, or `steps` not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.diagnostics import integrated_gradients
      >>> cell, xs = jl.lstm(8), jnp.ones((20, 3))
      >>> params = cell.init(jax.random.key(0), xs[0])
      >>> parts = integrated_gradients(lambda xs: jl.scan(cell, params, xs)[1][-1, 0], xs)
      >>> parts.attributions.shape, bool(abs(parts.gap) < 1e-5)
      ((20, 3), True)

    References:
      Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, arXiv:1703.01365,
      eq. 1 and proposition 1 (completeness).
    """
    _check_input(xs)
    check_size(steps, "steps")
    baseline = jax.tree.map(jnp.zeros_like, xs) if baseline is None else baseline
    of_xs: Any = jax.tree.structure(xs)
    of_baseline: Any = jax.tree.structure(baseline)
    check(of_baseline == of_xs, "baseline", "the structure of xs", of_baseline)
    for b, x in zip(jax.tree.leaves(baseline), jax.tree.leaves(xs), strict=True):
        check_shape(b, x.shape, "baseline", "as xs has it")
    way = jax.tree.map(jnp.subtract, xs, baseline)
    gradient = jax.grad(_scalar(score))

    def add(total, point):
        at, weight = point
        x = jax.tree.map(lambda b, w: (b + at * w).astype(w.dtype), baseline, way)
        more = lambda t, g: (t + weight * g).astype(t.dtype)
        return jax.tree.map(more, total, gradient(x)), None

    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    mean, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, way), ((points + 1) / 2, weights / 2))
    parts = jax.tree.map(jnp.multiply, way, mean)
    difference = score(xs) - score(baseline)
    gap = sum((a.sum() for a in jax.tree.leaves(parts)), start=-difference)
    return IntegratedGradients(parts, difference, gap)


def _check_input(xs):
    check(bool(jax.tree.leaves(xs)), "xs", "an array of floating-point numbers", repr(xs))
    for x in jax.tree.leaves(xs):
        check_floating(x, "xs")


def _scalar(score):
    def checked(xs):
        value = score(xs)
        check(jnp.shape(value) == (), "score", "a scalar", f"shape {jnp.shape(value)}")
        return value

    return checked
