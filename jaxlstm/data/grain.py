"""Grain's iterators with an identity beside their position, so that no other one takes it."""

import base64
import copy
import json
import operator
from typing import Any, Generic, Self

import numpy as np

from jaxlstm.data.position import Batch, check_fields, check_identity, show

MARKS = ("tuple", "base64", "items")  # of what is in a state and not in JSON


class Checked(Generic[Batch]):
    """A Grain iterator whose state says what it is the state of.

    The state of a `grain.MapDataset` or `IterDataset` is where it stands, and no more: another
    seed, batch or number of shards takes it without a word, and the run goes on with samples it
    has seen, and without some that it has not. (Grain's `DataLoader` compares the `repr` of its
    sampler and source, which need not tell their data.) Here the identity that you give stands
    beside it. Grain itself is not imported: any iterator with such a `get_state` and `set_state`
    will do.

    Args:
      iterator: of Grain: `iter` of a dataset or of a `DataLoader`.
      identity: whatever its order depends on, as JSON: a hash of the data (`fingerprint` of
        `jaxlstm.data.position`), the seed, the batch, the shard, the number of workers.

    Raises:
      ValueError: if the iterator has no such functions, or the identity is empty or no JSON.

    Example:
      >>> from jaxlstm.data.grain import Checked
      >>> class Numbers:  # grain.MapDataset.range(9).shuffle(seed=3).to_iter_dataset(), say
      ...     place = -1
      ...     def __next__(self):
      ...         self.place += 1
      ...         return self.place
      ...     def get_state(self):
      ...         return {"next_index": self.place + 1}
      ...     def set_state(self, state):
      ...         self.place = state["next_index"] - 1
      >>> numbers = Checked(Numbers(), {"data": "0 to 8", "seed": 3})
      >>> next(numbers), next(numbers), numbers.get_state()["grain"]
      (0, 1, {'next_index': 2})
      >>> Checked(Numbers(), {"data": "0 to 8", "seed": 4}).set_state(numbers.get_state())
      Traceback (most recent call last):
      ValueError: state: of another iterator: seed: 3 there, 4 here
    """

    def __init__(self, iterator: Any, identity: dict[str, Any]):
        for name in ("__next__", "get_state", "set_state"):
            if not callable(getattr(iterator, name, None)):
                raise ValueError(
                    f"iterator: expected one of Grain, with {name} (iter of a dataset), "
                    f"got {type(iterator).__name__}"
                )
        if not isinstance(identity, dict) or not identity:
            raise ValueError(
                f"identity: expected a dict of what the order depends on, got {show(identity)}"
            )
        self._iterator = iterator
        try:
            self._identity = json.loads(json.dumps(identity, default=operator.index))
        except (TypeError, ValueError) as error:
            raise ValueError(f"identity: expected JSON, got {show(identity)}") from error

    def get_state(self) -> dict[str, Any]:
        """Grain's state and the identity, as JSON.

        What JSON has not is marked, to come back as it was: `{"tuple": [...]}`, the bytes of a
        `DataLoader` as `{"base64": "..."}`, dicts with other keys than strings as
        `{"items": [[key, value], ...]}`. Grain's own JSON makes lists of tuples; from such a
        state its `ConcatThenSplitIterDataset` goes on elsewhere (0.2.18).
        """
        name = f"the state of {type(self._iterator).__name__}"
        kept = _encode(self._iterator.get_state(), name)
        return {"grain": kept, "identity": copy.deepcopy(self._identity)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position that `get_state` gave.

        Raises:
          ValueError: if the identity is another (the fields that differ are named), or the state
            is none of such an iterator.
        """
        if isinstance(state, dict) and "identity" in state:
            check_identity(state["identity"], self._identity)
        check_fields(state, ["grain", "identity"])
        kept, like = _decode(state["grain"]), self._iterator.get_state()
        if type(kept) is not type(like):
            raise ValueError(
                f"state: grain: expected {type(like).__name__}, "
                f"as {type(self._iterator).__name__} gives, got {type(kept).__name__}"
            )
        self._iterator.set_state(kept)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)


def _encode(value: Any, argument: str) -> Any:
    """A copy of `value` in JSON, with marks on what that has not; ValueError if it can't be."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if type(value) in (list, tuple):
        items = [_encode(v, argument) for v in value]
        return items if isinstance(value, list) else {"tuple": items}
    if type(value) is not dict:
        raise ValueError(f"{argument}: expected what JSON can hold, got {show(value)}")
    if all(isinstance(k, str) for k in value) and not _mark(value):
        return {k: _encode(v, argument) for k, v in value.items()}
    return {"items": [[_encode(k, argument), _encode(v, argument)] for k, v in value.items()]}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    mark = _mark(value)
    if mark is None:
        return {k: _decode(v) for k, v in value.items()}
    try:
        if mark == "base64":
            return base64.b64decode(value[mark], validate=True)
        items = _decode(value[mark])
        return tuple(items) if mark == "tuple" else {k: v for k, v in items}
    except (TypeError, ValueError) as error:
        raise ValueError(f"state: grain: a damaged {mark}: {error}") from error


def _mark(value: dict[Any, Any]) -> str | None:
    """What a dict stands for in place of itself."""
    return next((m for m in MARKS if list(value) == [m]), None)
