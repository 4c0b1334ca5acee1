"""Several processes that train one model: `jax.distributed`, and what they must agree on."""

import collections
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding

from jaxlstm.train.manifest import CheckpointError, Leaf


def join(coordinator: str = "", processes: int = 0, process: int = -1, deadline: int = 100) -> None:
    """Joins the other processes; before anything else asks JAX for its devices.

    Without arguments, by what the cluster's own launcher says (Slurm, Open MPI, TPU pods and
    whatever else `jax.distributed.initialize` knows). On CPUs the processes talk through Gloo.

    Args:
      coordinator: host and port of process 0.
      processes: how many there are.
      process: which one this is, from 0.
      deadline: seconds after which a process that does not answer counts as dead; the others
        then end with an error.

    Raises:
      ValueError: if only some of the first three are given.
      RuntimeError: if the others do not come.
    """
    given = [bool(coordinator), processes > 0, process >= 0]
    if any(given) and not all(given):
        raise ValueError("coordinator, processes and process: expected all three or none")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator or None,
        processes or None,
        process if process >= 0 else None,
        heartbeat_timeout_seconds=deadline,
        shutdown_timeout_seconds=deadline,
    )


def leads() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


class Agreement:
    """What any of several processes wishes to do, done by all of them after the same step.

    A step gives back the greatest of the wishes that went into it, the same in each process. It
    is looked at `lag` steps later, so that nobody waits for a step to be computed.

    Args:
      lag: steps from a wish to its deed.
    """

    def __init__(self, lag: int = 2):
        self._lag = lag
        self._wishes: collections.deque[Any] = collections.deque()

    def ask(self, greatest: Array) -> None:
        """Takes note of what a step gave back."""
        self._wishes.append(greatest)

    def reached(self) -> int:
        """What to do now; 0 for nothing. Wishes uttered before it are then settled too."""
        if len(self._wishes) <= self._lag:
            return 0
        wish = int(self._wishes.popleft())
        if wish:
            self._wishes.clear()
        return wish


def spread(tree: Any, shardings: Any) -> Any:
    """A batch on the devices of all processes.

    Args:
      tree: of NumPy arrays, each process's own part of them.
      shardings: of each array as a whole.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    return jax.tree.map(
        lambda a, s: jax.make_array_from_process_local_data(s, np.asarray(a)), tree, shardings
    )


def placed(tree: Any, shardings: Any) -> Any:
    """A state on the devices of all processes, which each have it whole.

    Args:
      tree: of arrays, the same in each process; typed keys too.
      shardings: of each.
    """
    if jax.process_count() == 1:
        return jax.tree.map(jax.device_put, tree, shardings)

    def one(array: Any, sharding: NamedSharding) -> Array:
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            data = one(jax.random.key_data(array), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(one, tree, shardings)


def gathered(tree: Any) -> Any:
    """A state of which each process has all, to be saved by one; all call this together.

    What is spread over several processes becomes NumPy arrays, the rest stays what it is.
    """

    def one(array: Any) -> Any:
        if not isinstance(array, Array) or array.is_fully_addressable or array.is_fully_replicated:
            return array
        from jax.experimental import multihost_utils

        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            data = one(jax.random.key_data(array))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        return multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(one, tree)


def here(tree: Any) -> Any:
    """What is the same on all devices, on one of this process's."""
    return jax.tree.map(lambda a: a.addressable_data(0), tree)


def told(find: Callable[[], tuple[list[np.ndarray], Any] | None], kinds: list[Leaf]) -> Any:
    """What process 0 finds, in all of them; or its error.

    Args:
      find: in process 0, gives arrays of those kinds, with something that JSON can hold; or None.
      kinds: of the arrays.

    Returns:
      The same.

    Raises:
      CheckpointError: if process 0 could not find it.
    """
    found, header, error = None, None, None
    if leads():
        try:
            found = find()
            header = {"more": found[1]} if found is not None else {}
        except Exception as failure:
            error, header = failure, {"error": str(failure)}
    # As bytes: nothing that passes through a device may be cast on the way.
    size = _broadcast(np.asarray(len(raw := json.dumps(header).encode()), np.int32))
    header = json.loads(_broadcast(_bytes(raw) if leads() else np.zeros(int(size), np.uint8)))
    if error is not None:
        raise error
    if "error" in header:
        raise CheckpointError(f"process 0: {header['error']}")
    if not header:
        return None
    arrays = []
    for n, leaf in enumerate(kinds):
        a = found[0][n] if found is not None else np.zeros(leaf.shape, jnp.dtype(leaf.dtype))
        raw = _broadcast(_bytes(np.ascontiguousarray(a).tobytes())) if a.size else b""
        arrays.append(np.frombuffer(raw, a.dtype).reshape(a.shape))
    return arrays, header["more"]


def _bytes(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, np.uint8)


def _broadcast(array: np.ndarray) -> Any:
    from jax.experimental import multihost_utils

    got = np.asarray(multihost_utils.broadcast_one_to_all(array))
    return got.tobytes() if got.dtype == np.uint8 else got
