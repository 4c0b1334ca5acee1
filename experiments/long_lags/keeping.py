"""Long runs kept at every look, so that the same command goes on where one was killed."""

import os
import time
from typing import Any

import jax

from experiments.long_lags.results import commit
from jaxlstm.train.checkpoints import Checkpoints


class Keeping:
    """The networks of a run, what was seen of them, and the seconds up to the last look.

    Args:
      folder: where they are kept; "" for nowhere.
      identity: what makes it this run, as JSON. Another's checkpoints are refused.

    Raises:
      ValueError: if another process writes there.
    """

    def __init__(self, folder: str, identity: dict[str, Any]):
        self.log: list[Any] = []  # what was seen, as JSON
        self.before = 0.0, 0.0  # seconds of processes before this one, of the clock and of the CPU
        self._began = _now()
        self._store = None
        if folder:
            place = os.path.join(folder, f"{identity['task']}.{identity['form']}")
            setting = {"devices": jax.device_count(), "commit": commit()}
            self._store = Checkpoints(
                place, identity=identity, setting=setting, keep=1, asynchronous=False
            )

    def restore(self, state: Any) -> tuple[int, bool, Any]:
        """The step, whether the run ended there, its state; 0, False, `state` if none is kept."""
        found = self._store and self._store.restore(state)
        if not found:
            return 0, False, state
        self.log += found.extra["log"]
        self.before = tuple(found.extra["seconds"])
        print(f"goes on after {found.step:,} updates, of {self.before[0]:,.0f} s", flush=True)
        return found.step, found.extra["ended"], found.state

    def save(self, step: int, ended: bool, state: Any) -> None:
        if self._store:
            here = (now - began for now, began in zip(_now(), self._began, strict=True))
            seconds = [a + b for a, b in zip(self.before, here, strict=True)]
            extra = {"log": self.log, "seconds": seconds, "ended": ended}
            self._store.save(step, state, extra)

    def __enter__(self) -> "Keeping":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._store:
            self._store.close()


def _now():
    return time.monotonic(), time.process_time()
