"""`nnx.RNN` by our fast sweeps."""

from typing import Any

import jax
from flax import nnx

from jaxlstm.checks import check
from jaxlstm.interop.flax_scan import cast, run, step_of, time_axis
from jaxlstm.interop.nnx.cells import CELLS, from_cell, is_cell
from jaxlstm.interop.nnx.modules import RecurrentCell, stream_of


class RNN(nnx.RNN):
    """`nnx.RNN` by `jaxlstm.scan`: the same arguments, state and calls, and our fast sweeps.

    Of a `RecurrentCell`, or of Flax's own cells as far as `from_nnx` takes them. Inputs may be a
    tree, if the cell takes one. `unroll`, `state_axes` and `broadcast_rngs` change nothing here.

    Ragged batches are as in `jaxlstm.scan`, which is not as in Flax: outputs behind `seq_lengths`
    are zero (Flax has there what the cell makes of the padding); a sequence of no steps ends with
    its initial carry (in Flax with the one after all of its padding); and what stands in the
    padding, NaN included, reaches no gradient (in Flax NaN does).

    Unless told otherwise, `nnx.RNN` draws from the same seed in each module, dropout masks too:
    give each `rngs`.

    Raises:
      ValueError: if the cell is another one, also a subclass of one of Flax's: of it nobody knows
        what it does.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop.nnx import RNN, RecurrentCell
      >>> rnn = RNN(RecurrentCell(jl.gru(64), 8, rngs=nnx.Rngs(0)))
      >>> ys = rnn(jnp.ones((2, 10, 8)), seq_lengths=jnp.array([10, 0]))
      >>> ys.shape, bool(ys[1].any())
      ((2, 10, 64), False)
    """

    def __init__(self, cell: Any, **options: Any):
        """As `nnx.RNN`."""
        known = isinstance(cell, RecurrentCell) or is_cell(cell)
        check(known, "cell", f"one of {', '.join(CELLS)}", type(cell).__name__)
        super().__init__(cell, **options)

    def __call__(
        self,
        inputs: Any,
        *,
        initial_carry: Any = None,
        seq_lengths: Any = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> Any:
        """The outputs of a sequence; or the carry after its last step, and the outputs.

        Args:
          inputs: (*B, T, *features), or (T, *B, *features) with `time_major`.
          initial_carry: as for `RecurrentCell`; by default `initialize_carry` of the cell.
          seq_lengths: (*B,) integers: how many steps each sequence has.
          return_carry: whether the carry is returned too.
          time_major: whether time is the first axis, of the outputs too.
          reverse: whether to run each sequence from its own last step to its first.
          keep_order: whether the outputs of a reversed run stay at the times of their inputs,
            and do not come in the order of the run.
          rngs: of the initial carry.

        Raises:
          ValueError: as `jaxlstm.scan`.
        """
        ours = lambda given, own: own if given is None else given
        axes = self.cell.num_feature_axes
        axis = time_axis(inputs, axes, ours(time_major, self.time_major))
        if initial_carry is None:
            stream = self.rngs if rngs is None else stream_of(rngs)
            shape = jax.tree.leaves(step_of(inputs, axis))[0].shape
            initial_carry = self.cell.initialize_carry(shape, stream)
        order = dict(
            reverse=ours(reverse, self.reverse), keep_order=ours(keep_order, self.keep_order)
        )
        cell, params, xs = _ours(self.cell, inputs)
        carry, ys = run(cell, params, xs, initial_carry, axis, lengths=seq_lengths, **order)
        return (carry, ys) if ours(return_carry, self.return_carry) else ys


def _ours(module, xs):
    """Our cell, its params and the inputs, as they are computed with."""
    if isinstance(module, RecurrentCell):
        return module.cell, *cast((module.params, xs), module.dtype)
    return *from_cell(module, "cell/"), cast(xs, module.dtype)
