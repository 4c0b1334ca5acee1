"""One writer at a time: a lock on a file that the operating system drops with its process."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import struct
import sys
import threading
from pathlib import Path
from typing import ClassVar

from jaxlstm.train.manifest import CheckpointError


class LockedError(CheckpointError):
    """Another process writes there, or another writer of this one."""


class Lock:
    """A POSIX record lock on a file, held until `release`, or until the process ends.

    However the process ends: a lock that is left behind by a killed run is none, which is why the
    file itself says nothing but who had it last. Unlike `flock`, it does not live on in forked
    workers, and it reaches over NFS. Record locks do not tell two writers of one process apart, so
    the process keeps a list of its own. Linux and macOS.

    Args:
      path: of the file; made if it is not there, and never deleted.

    Raises:
      LockedError: if the lock is taken.
      OSError: if the file can't be made or locked.
    """

    _held: ClassVar[set[tuple[int, int, int]]] = set()  # process, device, file
    _guard: ClassVar = threading.Lock()

    def __init__(self, path: Path):
        with self._guard:
            if path.exists() and _file(path.stat()) in self._held:
                # Closing any descriptor of the file would drop this process's lock on it.
                raise LockedError(f"{path.parent} is being written by this process already")
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptor = os.open(path, flags)
            try:
                _check_own(path, os.fstat(self._descriptor))
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                owner = _owner(self._descriptor)
                os.close(self._descriptor)
                raise LockedError(
                    f"{path.parent} is being written by another process: {owner}"
                ) from error
            except OSError:
                os.close(self._descriptor)
                raise
            self._file = _file(os.fstat(self._descriptor))
            self._held.add(self._file)
        who = {"host": socket.gethostname(), "pid": os.getpid()}
        with contextlib.suppress(OSError):  # a full disk may still be read
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(who).encode(), 0)

    def release(self) -> None:
        """Gives the lock back; again is nothing."""
        with self._guard:
            if self._file in self._held and self._descriptor >= 0:
                self._held.discard(self._file)
                os.close(self._descriptor)
                self._descriptor = -1


def _check_own(path: Path, status: os.stat_result) -> None:
    """Raises OSError if writing there would change what has another name too."""
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise OSError(errno.EINVAL, "not a file of that one name", str(path))


def holder_of(path: Path) -> int | None:
    """The process that holds a lock on a file; None if none does, or there is no file.

    Nothing is locked. The locks of this very process do not show, and it would lose them by
    looking, as by closing any descriptor of the file: ask about others' files only.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return _holder(descriptor)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> int | None:
    # struct flock: type, whence, start, length, process; macOS has the last three first.
    linux = sys.platform == "linux"
    layout = "hhqqi0q" if linux else "qqihh"
    anything = (fcntl.F_WRLCK, os.SEEK_SET)
    question = struct.pack(layout, *((*anything, 0, 0, 0) if linux else (0, 0, 0, *anything)))
    answer = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    kind, process = (answer[0], answer[4]) if linux else (answer[3], answer[2])
    return None if kind == fcntl.F_UNLCK else process


def _owner(descriptor: int) -> str:
    """Who holds the lock: by the kernel, if it is a process of this machine, or by the file."""
    process = _holder(descriptor)
    if process is not None and Path(f"/proc/{process}").exists():
        return json.dumps({"host": socket.gethostname(), "pid": process})
    return os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "of another machine"


def _file(status: os.stat_result) -> tuple[int, int, int]:
    return os.getpid(), status.st_dev, status.st_ino
