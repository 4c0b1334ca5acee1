"""What code does that it must not: run other code, leave its folder, take memory without bound."""

import ast
import ctypes
import linecache
import os
import resource
import struct
import sys
import threading
from pathlib import Path
from typing import Any

RUNS = {
    *("exec", "import", "pickle.find_class", "marshal.loads", "code.__new__", "cpython.run_file"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
    *("os.forkpty", "pty.spawn", "ctypes.dlopen", "ctypes.dlsym", "ctypes.call_function"),
    *("socket.connect", "socket.bind", "urllib.Request", "os.kill", "os.chdir", "os.putenv"),
}
# Which of an event's arguments are paths, and which the folders' descriptors that they start from.
PATHS: dict[str, tuple[tuple[int, int | None], ...]] = {
    **{name: ((0, None),) for name in ("os.listdir", "os.scandir", "os.truncate", "os.utime")},
    **{name: ((0, None),) for name in ("shutil.rmtree", "os.setxattr", "os.removexattr")},
    **{name: ((0, 1),) for name in ("os.remove", "os.rmdir")},
    **{name: ((0, 2),) for name in ("os.mkdir", "os.chmod")},
    **{name: ((0, 2), (1, 3)) for name in ("os.rename", "os.link")},
    **{name: ((1, None),) for name in ("shutil.copyfile", "shutil.move", "os.symlink")},
    "open": ((0, None),),
    "os.chown": ((0, 3),),
}
FOLLOW = ("open", "os.listdir", "os.scandir", "os.truncate", "os.chmod", "os.utime")
EVENTS = 0xFFF  # each of inotify's: opening, reading and closing too
SPARE = 6 << 30  # bytes of addresses beyond those in use; beyond them there is a MemoryError


class Watch:
    """An audit hook of this process, which stays for good, and inotify on a folder.

    The hook sees what Python does, whoever in it; inotify sees what any library does with the
    files that nobody has a reason to touch.

    Args:
      inside: the one folder where files may be opened.
      outside: a folder of baits.
    """

    def __init__(self, inside: Path, outside: Path):
        self._inside = os.path.realpath(inside)
        self._armed = False
        self._seen: list[str] = []
        self._busy = threading.local()
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK)
        self._names = {}
        for place in (outside, *outside.rglob("*")):
            if place.is_dir() and not place.is_symlink():
                number = libc.inotify_add_watch(self._inotify, os.fsencode(place), EVENTS)
                if number < 0:
                    raise OSError(ctypes.get_errno(), "inotify_add_watch")
                self._names[number] = place.name
        sys.addaudithook(self._hook)

    def limit(self) -> None:
        """Bounds the addresses, so that what takes too much fails and the machine goes on."""
        soft = _status("VmSize") + SPARE
        resource.setrlimit(resource.RLIMIT_AS, (soft, resource.getrlimit(resource.RLIMIT_AS)[1]))

    def begin(self) -> None:
        self._seen.clear()
        self._touched()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before = _status("VmRSS")
        self._armed = True

    def end(self) -> tuple[list[str], int]:
        """What was done that must not be, and by how many bytes the memory grew at its peak."""
        self._armed = False
        grown = max(0, _status("VmHWM") - self._before)
        return [*dict.fromkeys([*self._seen, *self._touched()])], grown

    def _touched(self) -> list[str]:
        out = []
        try:
            while raw := os.read(self._inotify, 1 << 16):
                at = 0
                while at < len(raw):
                    number, mask, _, length = struct.unpack_from("iIII", raw, at)
                    name = raw[at + 16 : at + 16 + length].rstrip(b"\0").decode()
                    out.append(f"bait {self._names.get(number)}/{name} touched: {mask:#x}")
                    at += 16 + length
        except BlockingIOError:
            return out
        return out

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            if event in RUNS or (event == "compile" and not _is_only_parsed(arguments)):
                self._seen.append(f"{event} {str(arguments)[:200]} {_where()}")
            for path, start in () if _is_apart() else PATHS.get(event, ()):
                base = -1 if start is None or len(arguments) <= start else arguments[start]
                follow = event in FOLLOW
                if event == "open" and isinstance(arguments[2], int):
                    follow = not arguments[2] & os.O_NOFOLLOW
                if not self._is_inside(arguments[path], base, follow):
                    self._seen.append(f"{event} {str(arguments)[:200]} {_where()}")
        finally:
            self._busy.now = False

    def _is_inside(self, path: Any, base: Any, follow: bool) -> bool:
        if path is None or isinstance(path, int):
            return True  # a descriptor: it was opened before
        path = os.fsdecode(path)
        if isinstance(base, int) and base >= 0:
            start = os.readlink(f"/proc/self/fd/{base}")
            if os.sep not in path and path != "..":
                return start == self._inside or start.startswith(self._inside + os.sep)
            path = os.path.join(start, path)
        elif os.sep not in path:
            # A name in a folder that is open already, as shutil.rmtree has it; its event does
            # not say which. Nothing here opens what lies in the working directory.
            return path not in ("..", "~")
        folder, name = os.path.split(os.path.abspath(path))
        real = os.path.realpath(path) if follow else os.path.join(os.path.realpath(folder), name)
        return real == self._inside or real.startswith(self._inside + os.sep)


def _where() -> str:
    """The last few places in the code, the innermost first."""
    frame: Any = sys._getframe(2)
    places = []
    while frame is not None and len(places) < 8:
        places.append(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}")
        frame = frame.f_back
    return f"in {' < '.join(places)}"


def _is_apart() -> bool:
    """Whether a source is read for the words of an error, or a module looked for by its name.

    Were one found and run, that would be seen.
    """
    frame: Any = sys._getframe()
    for _ in range(5):
        if frame is None:
            return False
        code = frame.f_code
        if code is linecache.updatecache.__code__ or code.co_name == "_fill_cache":
            return code.co_filename in (
                linecache.__file__,
                "<frozen importlib._bootstrap_external>",
            )
        frame = frame.f_back
    return False


def _is_only_parsed(arguments: tuple[Any, ...]) -> bool:
    """Whether a compile event is `ast.parse`'s, which runs nothing."""
    frame = sys._getframe(2)
    return arguments[1] == "<unknown>" and frame.f_code is ast.parse.__code__


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status has no {field}")
