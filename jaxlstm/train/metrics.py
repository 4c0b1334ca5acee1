"""The metrics of a run, a line of JSON each, that outlive the run's kills.

A line is there once its newline is: what a kill or a full disk has left of one is no line, and is
cut off before the next is written. A line is handed to the kernel before `add` returns, so that
no kill of the process can take it back. A power failure can, until `sync`: the disk is not waited
for at each line.

JSON knows no NaN and no infinity. They are written as the texts "NaN", "Infinity" and
"-Infinity", as in the JSON of Protocol Buffers, which every reader takes, and come back as
numbers; these three texts alone can therefore not be a value.
"""

import contextlib
import importlib
import json
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlstm.checks import check, describe, is_concrete
from jaxlstm.train.files import replace, sync

NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
NEVER = 2**63 - 1  # a step


class Metrics:
    """The lines of a run, and by choice the same curves for TensorBoard.

    Args:
      path: of the file, `metrics.jsonl`; its folder must exist.
      tensorboard: a folder for TensorBoard's files, made if it is not there; None for none.

    Raises:
      ImportError: if TensorBoard is asked for and tensorboardX is not installed.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from jaxlstm.train.metrics import Metrics
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   metrics = Metrics(Path(folder) / "metrics.jsonl")
      ...   metrics.add({"step": 10, "train_nats": 2.5})
      ...   metrics.add({"step": 20, "train_nats": float("inf")})
      ...   metrics.add({"step": 20, "event": "skipped", "norm": 1e9})
      ...   print(metrics.lines()[1])
      ...   metrics.cut(10)
      ...   print(metrics.lines())
      {'step': 20, 'train_nats': inf}
      [{'step': 10, 'train_nats': 2.5}]
    """

    def __init__(self, path: str | os.PathLike, tensorboard: str | os.PathLike | None = None):
        self._path = Path(path)
        self._board = None if tensorboard is None else _Board(Path(tensorboard))

    def add(self, line: Mapping[str, Any]) -> None:
        """Appends a line, in one write.

        Args:
          line: numbers, truth values, texts and None by name; the numbers may be scalars of NumPy
            or JAX. `step` is a number of steps. A line with the text `event` tells what happened
            ("rolled back", "skipped", ...) and is on no curve of TensorBoard.

        Raises:
          ValueError: if it is no such line.
          OSError: if it can't be written, as on a full disk; the lines before are whole.
        """
        plain = _plain_line(line)
        data = json.dumps({name: _to_json(value) for name, value in plain.items()}).encode() + b"\n"
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _cut_off_tail(descriptor)
            while data:  # once, unless the disk is full: then what is left over says so
                data = data[os.write(descriptor, data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                _cut_off_tail(descriptor)
            error.filename = str(self._path)
            raise
        finally:
            os.close(descriptor)
        if self._board is not None and "event" not in plain:
            self._board.add(plain)

    def lines(self) -> list[dict[str, Any]]:
        """What is there, without a last line that was cut off while it was written.

        A damaged line before it is left out with a warning that names it.
        """
        lines, complaints = read(self._path)
        for complaint in complaints:
            warnings.warn(complaint, stacklevel=2)
        return lines

    def cut(self, step: int) -> None:
        """Takes away the lines after a step, events too, which will be made again.

        The file is replaced durably and whole or not at all; the lines kept are so to the byte.
        Damaged lines stay: nobody knows that they came after. TensorBoard drops its points after
        the step when it sees the next.

        Raises:
          OSError: if it can't be written; the file is then as it was.
        """
        raw = self._path.read_bytes() if self._path.exists() else b""
        kept = b"".join(line + b"\n" for line in _whole(raw) if not _is_after(line, step))
        if kept != raw:
            replace(self._path, kept)
        if self._board is not None:
            self._board.cut(step)

    def sync(self) -> None:
        """Makes the lines durable: before a checkpoint, whose resumption counts on them.

        Raises:
          OSError: if the disk fails.
        """
        for path in (self._path, self._path.parent) if self._path.exists() else ():
            sync(path)

    def close(self) -> None:
        """Closes TensorBoard's file, if there is one; the lines need no closing."""
        if self._board is not None:
            self._board.close()


def read(path: str | os.PathLike) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of a file, which a run may be writing.

    Args:
      path: of the file.

    Returns:
      The lines, none if there is no file; and a complaint for each that is damaged.

    Raises:
      OSError: if it can't be read.

    Example:
      >>> import tempfile
      >>> from jaxlstm.train.metrics import read
      >>> with tempfile.NamedTemporaryFile("w") as file:
      ...   _ = file.write('{"step": 1, "train_nats": "NaN"}\\n{"step": 2, "tra'), file.flush()
      ...   print(read(file.name))
      ([{'step': 1, 'train_nats': nan}], [])
    """
    path = Path(path)
    lines, complaints = [], []
    for number, line in enumerate(_whole(path.read_bytes() if path.exists() else b""), 1):
        try:
            lines.append(_parse(line))
        except ValueError as error:
            complaints.append(f"{path}, line {number}: damaged and left out ({error})")
    return lines, complaints


def _whole(raw: bytes) -> list[bytes]:
    return raw.split(b"\n")[:-1]


def _parse(raw: bytes) -> dict[str, Any]:
    """A line; ValueError if it is damaged."""
    try:
        line = json.loads(raw.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    check(isinstance(line, dict), "line", "names and values", type(line).__name__)
    check(_is_step(line.get("step")), "step", "a number of steps", repr(line.get("step")))
    return {name: _from_json(value) for name, value in line.items()}


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_after(raw: bytes, step: int) -> bool:
    try:
        return _parse(raw)["step"] > step
    except ValueError:
        return False


def _plain_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """The line with Python's own numbers; ValueError if it is none."""
    check(isinstance(line, Mapping), "line", "values by name", describe(line))
    names = all(isinstance(name, str) for name in line)
    check(names, "line", "texts for names", ", ".join(map(repr, line)))
    plain = {name: _plain(name, value) for name, value in line.items()}
    step, event = plain.get("step"), plain.get("event", "")
    check(_is_step(step), "line['step']", "a number of steps", repr(step))
    check(isinstance(event, str), "line['event']", "a text", repr(event))
    return plain


def _plain(name: str, value: Any) -> bool | int | float | str | None:
    plain = value
    if getattr(value, "shape", None) == () and hasattr(value, "dtype") and is_concrete(value):
        with contextlib.suppress(TypeError, RuntimeError):  # a key, say: it fails the check below
            plain = np.asarray(value).item()
    entry, expected = f"line[{name!r}]", "a number, a truth value, a text or None, not traced"
    check(isinstance(plain, bool | int | float | str | None), entry, expected, describe(value))
    clashes = isinstance(plain, str) and plain in NOT_FINITE
    check(not clashes, entry, "a text that is not read as a number", repr(plain))
    return plain


def _to_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _from_json(value: Any) -> Any:
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _cut_off_tail(descriptor: int) -> None:
    """Ends a file after its last newline."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.ftruncate(descriptor, os.pread(descriptor, size, 0).rfind(b"\n") + 1)


class _Board:
    """TensorBoard's files, a new one for each process and each cut.

    By tensorboardX's RecordWriter, as its SummaryWriter writes in a thread that ends at the first
    error of the disk; the process then waits for it forever (seen with tensorboardX 2.6.5).
    """

    def __init__(self, folder: Path):
        try:
            self._library = importlib.import_module("tensorboardX")
            self._events = importlib.import_module("tensorboardX.proto.event_pb2")
            self._summaries = importlib.import_module("tensorboardX.proto.summary_pb2")
        except ImportError as error:
            install = "pip install 'jaxlstm[tensorboard]'"
            raise ImportError(f"tensorboardX can't be imported ({error}): {install}") from error
        self._folder = folder
        self._purge_step = NEVER
        self._writer: Any = None

    def add(self, line: dict[str, Any]) -> None:
        if self._writer is None:
            self._begin()
        numbers = {n: v for n, v in line.items() if type(v) in (int, float) and n != "step"}
        value = self._summaries.Summary.Value
        values = [value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._write(step=line["step"], summary=self._summaries.Summary(value=values))
        self._writer.flush()

    def cut(self, step: int) -> None:
        self.close()
        self._purge_step = min(self._purge_step, step + 1)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        path = self._folder / f"events.out.tfevents.{time.time_ns()}"
        self._writer = self._library.RecordWriter(str(path))
        self._write(file_version="brain.Event:2")
        # The first start of a folder purges nothing, whatever its step: so none is left out.
        log = self._events.SessionLog
        self._write(step=self._purge_step, session_log=log(status=log.START))
        self._purge_step = NEVER

    def _write(self, **fields: Any) -> None:
        event = self._events.Event(wall_time=time.time(), **fields)
        self._writer.write(event.SerializeToString())
