"""Subsampling in time: neighbouring steps side by side."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxlstm.base import Cell, Layer, cell, is_symbolic
from jaxlstm.checks import check, check_lengths, check_options, check_size, check_xs
from jaxlstm.combine.stack import apply_layer, shorter
from jaxlstm.sequence import valid_steps


@cell
def pyramid(bare: Cell | Layer, *, factor: int = 2) -> Layer:
    """A layer that reads `factor` steps at a time, so that its output is that much shorter.

        y_t = layer([x_{2t}; x_{2t+1}])        for a factor of 2

    The last steps of a sequence whose length is no multiple of the factor are filled up with
    zeros. In a stack, the layers behind see the shorter lengths; alone, `layer.shorten(lengths)`
    gives them.

    Args:
      bare: a Cell or Layer.
      factor: how many steps go together.

    Returns:
      A Layer with the params and carry of `bare` for inputs of size `factor` D; the output is
      (⌈T / factor⌉, *B, H). It takes `lengths`, but no `mask` and no `resets`.

    Raises:
      ValueError: if `bare` is neither Cell nor Layer, or `factor` not a positive integer; when
        applied, if there is a mask or resets.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> both = jl.bidirectional(jl.lstm(8), jl.lstm(8))
      >>> listener = jl.stack(both, jl.pyramid(both), jl.pyramid(both))
      >>> xs, lengths = jnp.ones((10, 2, 3)), jnp.array([10, 3])
      >>> params = listener.init(jax.random.key(0), xs[0])
      >>> carry, ys = listener.apply(params, xs, lengths=lengths)
      >>> ys.shape, listener.shorten(lengths).tolist()
      ((3, 2, 16), [3, 1])

    References:
      Chan, Jaitly, Le and Vinyals 2016, Listen, attend and spell, arXiv:1508.01211, eq. 5.
    """
    check(isinstance(bare, Cell | Layer), "bare", "a Cell or a Layer", repr(bare))
    check_size(factor, "factor")
    fewer = lambda lengths: -(-lengths // factor)

    def init(key, x):
        wide = lambda a: jax.ShapeDtypeStruct((*a.shape[:-1], factor * a.shape[-1]), a.dtype)
        return bare.init(key, jax.tree.map(wide, x))

    def apply(params, xs, carry=None, *, lengths=None, mask=None, resets=None, **options):
        check_options(options)
        check(mask is None, "mask", "None for a pyramid, of which a step is several", "a mask")
        check(resets is None, "resets", "None for a pyramid, of which a step is several", "resets")
        shape = check_xs(xs)
        known = not is_symbolic(shape[0])
        check(known, "xs", "a known number of steps, of which some make one", shape)
        lengths = check_lengths(lengths, shape)
        xs = jax.tree.map(together, valid_steps(xs, lengths, None))
        lengths = None if lengths is None else fewer(lengths)
        return apply_layer(bare, params, xs, carry, lengths=lengths, **options)

    def together(x):
        x = jnp.pad(x, [(0, -len(x) % factor)] + [(0, 0)] * (x.ndim - 1))
        x = jnp.moveaxis(x.reshape(-1, factor, *x.shape[1:]), 1, -2)
        return x.reshape(*x.shape[:-2], factor * x.shape[-1])

    def shorten(lengths: Any) -> Any:
        return shorter(bare, fewer(jnp.asarray(lengths)))

    return Layer(init, apply, shorten)
