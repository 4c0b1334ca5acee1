"""Files that are there whole, and still there after a power failure."""

import errno
import os
import shutil
import stat
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Writes a file durably, whole or not at all."""
    beside = path.with_name(path.name + ".writing")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def contents(path: Path, most: int) -> bytes:
    """The first bytes of a file, no more than `most`.

    Raises:
      OSError: if it is no file: a link is not followed, and no pipe waited for.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Makes a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Deletes a file, a link (and not what it leads to) or a folder; nothing if it is not there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except RecursionError as error:
        raise OSError(errno.ELOOP, "folders in folders, too deep to delete", str(path)) from error
