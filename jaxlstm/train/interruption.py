"""Signals as a wish to stop: the step is finished, the state is saved, the exit code says so."""

import contextlib
import os
import signal
import sys
import threading
from types import TracebackType

STOPPED = 75
"""The exit code of a run that was told to stop and has saved: the same command goes on.

It is EX_TEMPFAIL of `sysexits.h`; a scheduler that restarts on it loses nothing. A run that was
told twice ends at once with 128 + the signal's number, as a shell has it: 130 or 143.
"""


class StopRequestedError(Exception):
    """Raised by `Interruption.check`."""


class Interruption:
    """While it is entered, SIGTERM and SIGINT ask to stop, and the second one ends the process.

    The signals are taken by a thread of their own, so that the second one is not kept waiting by
    a compilation or a computation. A signal that the process was told to ignore stays ignored.
    With `jax.distributed`, enter it after `jax.distributed.initialize`, which takes SIGTERM too.

    Example:
      >>> from jaxlstm.train.interruption import Interruption
      >>> with Interruption() as stop:
      ...     for step in range(3):
      ...         if stop.requested:
      ...             break  # save here, and sys.exit(STOPPED)
      >>> step
      2

    Raises:
      ValueError: if it is entered in another thread than the main one.
    """

    def __init__(self) -> None:
        self._signal = 0

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return self._signal != 0

    def check(self) -> None:
        """Raises StopRequestedError if there is a wish to stop."""
        if self._signal:
            raise StopRequestedError(signal.Signals(self._signal).name)

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("signals can only be taken in the main thread")
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGTERM, signal.SIGINT)
            if signal.getsignal(number) != signal.SIG_IGN
        }
        self._taking = threading.Thread(target=self._take, args=(reading,), daemon=True)
        self._taking.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writing)
        self._taking.join()

    def _take(self, reading: int) -> None:
        with open(reading, "rb", buffering=0) as pipe:
            while raw := pipe.read(1):
                number = raw[0]
                if number not in self._before:
                    continue
                name = signal.Signals(number).name
                if self._signal:
                    _say(f"{name} again: stopping at once")
                    os._exit(128 + number)
                self._signal = number
                _say(f"{name}: stopping after this step; once more: at once")


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{line}\n".encode())
