"""What the iterators share: a position of two integers, and the identity of what it is one of.

The order of an epoch's samples depends on the data, the arguments, the seed and the epoch, and
on no generator that has been drawn from before. An epoch and a place in it are therefore a whole
position; every process of a run has the same one. Beside it in a checkpoint stands the identity,
with a hash of the data, so that a run never goes on with other samples unawares.
"""

import copy
import hashlib
import json
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, Self, TypeAlias, TypeVar

import numpy as np

FORMAT = 1  # of the identity; another number wherever the same arguments give another order
LIMIT = 2**53  # integers below it are exact wherever JSON is read
BLOCK = 1 << 24  # bytes that are copied at a time
NO_NUMBERS = "OSUMm"  # kinds of dtypes: objects, strings and times

Batch = TypeVar("Batch")
Plan: TypeAlias = Sequence[Any] | np.ndarray  # an entry for each batch of an epoch


def fingerprint(*arrays: Any) -> str:
    """The SHA-256 of arrays: of their dtypes, shapes and bytes.

    The bytes are those of the values in C order, whatever the layout in memory; what is not
    contiguous is copied block by block.

    Args:
      arrays: NumPy arrays of any shape and dtype but object, or what becomes such.

    Returns:
      64 hexadecimal digits.

    Raises:
      ValueError: if an array holds Python objects.

    Example:
      >>> import numpy as np
      >>> from jaxlstm.data.position import fingerprint
      >>> x = np.arange(6.0).reshape(2, 3)
      >>> fingerprint(x) == fingerprint(np.asfortranarray(x)), fingerprint(x) == fingerprint(x.T)
      (True, False)
    """
    digest = hashlib.sha256()
    for number, array in enumerate(map(np.asarray, arrays)):
        if array.dtype.hasobject:
            raise ValueError(f"arrays[{number}]: expected numbers, got Python objects")
        digest.update(f"{array.dtype.str} {array.dtype} {array.shape}\n".encode())
        for block in _blocks(array):
            digest.update(block.data)
    return digest.hexdigest()


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    if array.flags.c_contiguous or array.nbytes <= BLOCK:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    elif len(array) == 1:
        yield from _blocks(array[0])
    else:
        for part in (array[: len(array) // 2], array[len(array) // 2 :]):
            yield from _blocks(part)


def permutation(size: int, seed: int | None, epoch: int, stream: int = 0) -> np.ndarray:
    """The order of `size` things in an epoch, (size,) integers; None for a seed leaves them be.

    It sorts the raw numbers of Philox (Salmon et al. 2011), whose key is the seed and the epoch
    and whose counter begins at the stream. NumPy keeps those as they are from version to version,
    which it does not promise of `Generator.permutation`.
    """
    if seed is None:
        return np.arange(size)
    words = lambda *numbers: np.array(numbers, np.uint64)
    bits = np.random.Philox(key=words(seed, epoch), counter=words(0, 0, 0, stream))
    return np.argsort(bits.random_raw(size), kind="stable")


def show(value: Any) -> str:
    """What came, for an error message: its type and itself."""
    return f"{type(value).__name__} {value!r}"[:200]


def check_count(value: Any, argument: str, least: int = 1) -> int:
    """`value` as an int; ValueError unless it is an integer in [least, 2**53)."""
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or not least <= value < LIMIT:
        raise ValueError(f"{argument}: expected an integer in [{least}, 2**53), got {show(value)}")
    return operator.index(value)


def check_seed(seed: Any) -> int | None:
    """`seed` as an int, or None; ValueError unless it is that."""
    return None if seed is None else check_count(seed, "seed", least=0)


def check_shard(shard: Any, batch: int) -> tuple[int, slice]:
    """The number of shards, and which rows of a global batch are this one's.

    Args:
      shard: (index, count): which process this is, of how many.
      batch: B, the rows of a global batch.

    Raises:
      ValueError: if there is no such shard, or the batch can't be divided by the count.
    """
    if not isinstance(shard, tuple | list) or len(shard) != 2:
        raise ValueError(f"shard: expected (index, count), got {show(shard)}")
    index, count = check_count(shard[0], "shard[0]", least=0), check_count(shard[1], "shard[1]")
    if index >= count:
        raise ValueError(f"shard: expected an index in [0, {count}), got {index}")
    if batch % count:
        raise ValueError(f"batch: expected a multiple of {count}, the shards, got {batch}")
    return count, slice(index * batch // count, (index + 1) * batch // count)


def check_sequences(sequences: Iterable[Any], argument: str) -> list[np.ndarray]:
    """The sequences as arrays (T_i, ...) of numbers; ValueError unless all are alike but for T_i.

    An empty list or tuple is a sequence of no steps, of the dtype of the others.
    """
    given = list(sequences)
    arrays = [np.asarray(s) for s in given]
    untyped = [isinstance(s, list | tuple) and not s for s in given]
    if all(untyped):
        raise ValueError(f"{argument}: expected arrays (T, ...), got {given or 'none'}"[:200])
    first = arrays[untyped.index(False)]
    trailing, dtype = first.shape[1:], first.dtype
    axes = ", ".join(("T", *map(str, trailing)))
    for number, (s, a) in enumerate(zip(given, arrays, strict=True)):
        if untyped[number]:
            arrays[number] = np.zeros((0, *trailing), dtype)
        elif a.ndim == 0 or a.dtype.kind in NO_NUMBERS:
            raise ValueError(f"{argument}[{number}]: expected numbers (T, ...), got {show(s)}")
        elif (a.shape[1:], a.dtype) != (trailing, dtype):
            raise ValueError(
                f"{argument}[{number}]: expected ({axes}) of {dtype}, as the first has it, "
                f"got shape {a.shape} of {a.dtype}"
            )
    return arrays


def check_targets(targets: Iterable[Any], sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The targets as arrays (T_i, ...); ValueError unless there is one for every step."""
    arrays = check_sequences(targets, "targets")
    if len(arrays) != len(sequences):
        raise ValueError(f"targets: expected {len(sequences)} sequences of them, got {len(arrays)}")
    for number, (target, sequence) in enumerate(zip(arrays, sequences, strict=True)):
        if len(target) != len(sequence):
            raise ValueError(
                f"targets[{number}]: expected {len(sequence)} steps, a target for each, "
                f"got {len(target)}"
            )
    return arrays


def check_fields(state: Any, fields: Sequence[str]) -> None:
    """Raises ValueError, naming each field that is amiss, unless `state` has just those."""
    if not isinstance(state, dict):
        raise ValueError(f"state: expected a dict of {', '.join(fields)}, got {show(state)}")
    amiss = [f"{name} is missing" for name in fields if name not in state]
    amiss += [f"{name} is not expected" for name in state if name not in fields]
    if amiss:
        raise ValueError(f"state: {'; '.join(amiss)}")


def check_identity(there: Any, here: dict[str, Any], free: Sequence[str] = ()) -> None:
    """Raises ValueError, naming each field that differs, unless the identities are the same.

    Args:
      there: the one in a state.
      here: the one of the iterator that is to take the state.
      free: the fields that may differ.

    Example:
      >>> from jaxlstm.data.position import check_identity
      >>> check_identity({"batch": 8, "seed": 3}, {"batch": 8, "seed": 4})
      Traceback (most recent call last):
      ValueError: state: of another iterator: seed: 3 there, 4 here
    """
    if not isinstance(there, dict):
        raise ValueError(f"state: identity: expected a dict, got {show(there)}")
    names = [*here, *(name for name in there if name not in here)]
    differ = []
    for name in names:
        texts = [_text(i[name]) if name in i else "missing" for i in (there, here)]
        if texts[0] != texts[1] and not (name in free and name in there):
            differ.append(f"{name}: {texts[0][:200]} there, {texts[1][:200]} here")
    if differ:
        raise ValueError(f"state: of another iterator: {'; '.join(differ)}")


def _text(value):
    return json.dumps(value, sort_keys=True, default=repr)  # tells 1, 1.0 and true apart


class Resumable(ABC, Generic[Batch]):
    """An iterator over epochs without end, with a position that can be kept and gone to.

    To make one: `_plan` draws an epoch, with an entry for each batch, and `_take` makes a batch
    of an entry. Its data must not change while it is in use.

    Args:
      kind: of the iterator.
      identity: what else the order depends on, as JSON; "shards" among it.
      unit: what a state calls the place in an epoch.
    """

    def __init__(self, kind: str, identity: dict[str, Any], unit: str = "batch"):
        self._identity = {"kind": kind, "format": FORMAT, **identity}
        self._unit = unit
        self._epoch = self._place = 0
        self._drawn: tuple[int, Plan] | None = None  # an epoch and its plan

    @abstractmethod
    def _plan(self, epoch: int) -> Plan:
        """What makes up each batch of an epoch; the same whenever it is asked."""

    @abstractmethod
    def _take(self, entry: Any) -> Batch:
        """The batch of an entry, this shard's rows of it."""

    def _entries(self, epoch: int) -> Plan:
        epoch = check_count(epoch, "epoch", least=0)
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self._plan(epoch)
        return self._drawn[1]

    def batches(self, epoch: int = 0) -> int:
        """How many batches an epoch has."""
        return len(self._entries(epoch))

    def get_state(self) -> dict[str, Any]:
        """The position, as JSON: the epoch, from 0, the batch to come in it, and the identity.

        It is the same for every shard, so that one process can keep it for all. Batches that
        something has fetched ahead of the training count as gone.
        """
        identity = copy.deepcopy(self._identity)
        return {"epoch": self._epoch, self._unit: self._place, "identity": identity}

    def set_state(self, state: dict[str, Any], reshard: bool = False) -> None:
        """Goes to a position that `get_state` gave.

        Args:
          state: of an iterator over the same data with the same arguments, but for the index of
            its shard.
          reshard: whether the number of shards may be another; the global batches are the same.

        Raises:
          ValueError: if the state is of another iterator (the fields that differ are named), or
            there is no such position. The position is then the one before.
        """
        if isinstance(state, dict) and "identity" in state:  # says most of another iterator's
            check_identity(state["identity"], self._identity, ["shards"] if reshard else [])
        check_fields(state, ["epoch", self._unit, "identity"])
        check_count(state["identity"]["shards"], "state: identity: shards")
        epoch = check_count(state["epoch"], "state: epoch", least=0)
        place = check_count(state[self._unit], f"state: {self._unit}", least=0)
        count = len(self._entries(epoch))
        if place >= count:
            raise ValueError(
                f"state: expected a {self._unit} in [0, {count}) of epoch {epoch}, got {place}"
            )
        self._epoch, self._place = epoch, place

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        entries = self._entries(self._epoch)
        batch = self._take(entries[self._place])
        self._place += 1
        if self._place == len(entries):
            self._epoch, self._place = self._epoch + 1, 0
        return batch
