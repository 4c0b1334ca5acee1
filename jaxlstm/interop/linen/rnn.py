"""`nn.RNN` by our fast sweeps."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from flax.traverse_util import flatten_dict

from jaxlstm.base import Array, Carry
from jaxlstm.checks import check
from jaxlstm.interop.arrays import Entries
from jaxlstm.interop.flax_scan import cast, run, step_of, time_axis
from jaxlstm.interop.linen.cells import CELLS, from_cell, is_cell
from jaxlstm.interop.linen.modules import RecurrentCell, first_carry


class RNN(linen.RNN):
    """`nn.RNN` by `jaxlstm.scan`: the same fields, arguments and variables, and our fast sweeps.

    Of a `RecurrentCell`, or of Flax's own cells as far as `from_linen` takes them; it may be
    either of an `nn.Bidirectional`. `unroll` and `split_rngs` change nothing here. Inputs may be
    a tree, if the cell takes one; its first array tells the batch axes.

    Ragged batches are as in `jaxlstm.scan`, which is not as in Flax: outputs at and after a
    length are zero (Flax has there what the cell makes of the padding); a sequence of no steps
    ends with its initial carry (in Flax with the one after all of its padding); and what stands
    in the padding, NaN included, reaches no gradient (in Flax NaN does).

    What cells draw for their first carry, as dropout masks, comes from `init_key` if there is
    one, else from the stream "dropout", and where there is none, at initialisation, from
    "params"; a cell that needs a key and gets none raises. (In `nn.RNN` the stream comes before
    `init_key`: see `RecurrentCell`.)

    Raises:
      ValueError: if the cell is another one, also a subclass of one of Flax's: of it nobody knows
        what it does; or `variable_axes` or `variable_broadcast` is not its default.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop.linen import RNN, RecurrentCell
      >>> model, xs = RNN(RecurrentCell(jl.gru(8))), jnp.ones((2, 5, 3))
      >>> variables = model.init(jax.random.key(0), xs)
      >>> ys = model.apply(variables, xs, seq_lengths=jnp.array([5, 0]))
      >>> ys.shape, bool(ys[1].any())
      ((2, 5, 8), False)
    """

    def __post_init__(self) -> None:
        known = isinstance(self.cell, RecurrentCell) or is_cell(self.cell)
        expected = f"a RecurrentCell or one of Flax's {', '.join(CELLS)}"
        check(known, "cell", expected, type(self.cell).__name__)
        axes, shared = self.variable_axes, self.variable_broadcast
        check(not axes, "variable_axes", "its default {}", axes)
        check(shared == "params", "variable_broadcast", "its default 'params'", repr(shared))
        super().__post_init__()

    def __call__(
        self,
        inputs: Any,
        *,
        initial_carry: Carry | None = None,
        init_key: Array | None = None,
        seq_lengths: Any = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Runs the cell over sequences.

        Args:
          inputs: (*B, T, *features), or (T, *B, *features) if `time_major`.
          initial_carry: with the arrays of the cell's carry in their order, in any structure.
          init_key: for cells that draw noise for their first carry.
          seq_lengths: (*B,) integers in [0, T].
          return_carry: whether to return the carry after each sequence's last step too.
          time_major: whether time is the first axis.
          reverse: runs each sequence from its own last step to its first.
          keep_order: whether the outputs of a reversed run stay at their own times.

        Returns:
          The outputs, (*B, T, H) or (T, *B, H), or the carry and these.

        Raises:
          ValueError: if an argument does not fit, or as `from_linen` of one of Flax's cells.
        """
        given = lambda value, name: getattr(self, name) if value is None else value
        module = self.cell
        axis = time_axis(inputs, module.num_feature_axes, given(time_major, "time_major"))
        step = step_of(inputs, axis)
        if isinstance(module, RecurrentCell):
            cell, params = module.cell, module.weights(step)
        else:
            cell, params = _of_flax(module, step)
        carry = initial_carry
        if carry is None:
            carry = _start(module, params, step, init_key)
        order = dict(
            reverse=bool(given(reverse, "reverse")), keep_order=given(keep_order, "keep_order")
        )
        xs = cast(inputs, module.dtype)
        carry, ys = run(cell, params, xs, carry, axis, lengths=seq_lengths, **order)
        return (carry, ys) if given(return_carry, "return_carry") else ys


def _start(module, params, step, key):
    if not isinstance(module, RecurrentCell):
        return module.initialize_carry(jax.random.key(0) if key is None else key, step.shape)
    if key is None and (module.has_rng("dropout") or module.has_rng("params")):
        key = module.make_rng("dropout")
    return first_carry(module, params, step, key)


def _of_flax(module, step):
    """Our cell and params of one of Flax's, whose variables one step makes."""
    if "params" not in module.variables and module.is_mutable_collection("params"):
        carry = module.initialize_carry(jax.random.key(0), step.shape)
        module(carry, jnp.zeros(step.shape, step.dtype))
    weights = linen.meta.unbox(module.variables.get("params", {}))
    return from_cell(module, Entries("params", flatten_dict(weights, sep="/")), "")
