import json
import math
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import time
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxlstm.train.metrics import Metrics, read

LINES = [{"step": n, "train_nats": 3.0 / n} for n in range(1, 6)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def filled(path, lines=LINES):
    metrics = Metrics(path)
    for line in lines:
        metrics.add(line)
    return metrics


def no_constants(name):
    raise ValueError(f"strict JSON has no {name}")


def test_what_is_added_comes_back_and_any_reader_can_read_it(path):
    line = {"step": 3, "a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1, "e": None}
    line |= {"f": True, "event": "é\n\u2028", "g": 2**63}
    metrics = filled(path, [line, *LINES])
    back = metrics.lines()
    assert math.isnan(back[0].pop("a"))
    assert back[1:] == LINES
    assert back[0] == {name: value for name, value in line.items() if name != "a"}
    raw = path.read_text(encoding="ascii").splitlines()
    assert len(raw) == 1 + len(LINES)
    strict = [json.loads(x, parse_constant=no_constants) for x in raw]
    assert [strict[0][name] for name in "abc"] == ["NaN", "Infinity", "-Infinity"]


def test_scalars_of_numpy_and_jax_are_numbers(path):
    metrics = filled(path, [{
        "step": np.int64(7), "a": np.float32(0.1), "b": jnp.float32(0.1), "c": np.array(2.5),
        "d": jnp.bfloat16(1.5), "e": ml_dtypes.bfloat16(1.5), "f": np.bool_(True),
        "g": jnp.arange(5).sum(), "h": np.str_("text"), "i": np.float16(np.nan),
        "event": np.array("skipped"),
    }])  # fmt: skip
    (back,) = metrics.lines()
    assert math.isnan(back.pop("i"))
    tenth = 0.10000000149011612  # the float32 that is nearest to it, in full
    assert back == {
        "step": 7, "a": tenth, "b": tenth, "c": 2.5, "d": 1.5, "e": 1.5, "f": True, "g": 10,
        "h": "text", "event": "skipped",
    }  # fmt: skip
    assert back["f"] is True


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ([1], "line: expected values by name, got list [1]"),
        ({"a": 1}, "line['step']: expected a number of steps, got None"),
        ({"step": 1.0}, "line['step']: expected a number of steps, got 1.0"),
        ({"step": True}, "line['step']: expected a number of steps, got True"),
        ({"step": -1}, "line['step']: expected a number of steps, got -1"),
        ({"step": 1, 2: 3}, "line: expected texts for names, got 'step', 2"),
        ({"step": 1, "event": 2}, "line['event']: expected a text, got 2"),
        ({"step": 1, "a": [1, 2]}, "line['a']: expected a number, a truth value, a text or None"),
        ({"step": 1, "a": {"b": 1}}, "got dict {'b': 1}"),
        ({"step": 1, "a": 1j}, "got complex 1j"),
        ({"step": 1, "a": np.complex64(1j)}, "got shape () of complex64"),
        ({"step": 1, "a": np.zeros(1)}, "got shape (1,) of float64"),
        ({"step": 1, "a": np.array({1})}, "got shape () of object"),
        ({"step": 1, "a": jax.random.key(0)}, "got shape () of key<fry>"),
        ({"step": 1, "a": "-Infinity"}, "expected a text that is not read as a number"),
    ],
)
def test_what_is_no_line_is_refused_in_words_and_leaves_no_trace(path, line, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Metrics(path).add(line)
    assert not path.exists()


def test_a_traced_number_is_refused(path):
    metrics = Metrics(path)
    with pytest.raises(ValueError, match="not traced, got shape \\(\\) of float"):
        jax.jit(lambda x: metrics.add({"step": 1, "a": x}))(1.0)


def test_a_line_is_one_write_and_is_there_at_once(path, monkeypatch):
    metrics, writes, write = Metrics(path), [], os.write

    def counted(descriptor, data):
        writes.append(data)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", counted)
    for n, line in enumerate(LINES, 1):
        metrics.add(line)
        assert read(path) == (LINES[:n], [])
    assert len(writes) == len(LINES)


def test_without_a_file_there_are_no_lines(path):
    assert Metrics(path).lines() == []
    Metrics(path).cut(3)
    assert not path.exists()


def test_a_line_cut_off_anywhere_is_none_and_the_next_takes_its_place(path):
    whole = json.dumps(LINES[0]).encode() + b"\n"
    last = json.dumps(LINES[1]).encode() + b"\n"
    for length in range(len(last)):
        path.write_bytes(whole + last[:length])
        metrics = Metrics(path)
        assert metrics.lines() == LINES[:1]
        metrics.add(LINES[1])
        assert path.read_bytes() == whole + last
        path.write_bytes(whole + last[:length])
        metrics.cut(1)
        assert path.read_bytes() == whole
    path.write_bytes(last[:-1])
    Metrics(path).add(LINES[0])
    assert path.read_bytes() == whole


KILLED = """import itertools, sys
from jaxlstm.train.metrics import Metrics
metrics = Metrics(sys.argv[1])
for n in itertools.count(1):
    metrics.add({"step": n, "train_nats": 3.0 / n})
"""


def test_a_killed_run_leaves_whole_lines(path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)])
    until = time.monotonic() + 60
    while time.monotonic() < until and not (path.exists() and path.stat().st_size > 20_000):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    metrics = Metrics(path)
    steps = [line["step"] for line in metrics.lines()]
    assert steps == list(range(1, len(steps) + 1))
    metrics.add({"step": 10**9})
    assert [line["step"] for line in metrics.lines()] == [*steps, 10**9]


@contextmanager
def full_disk(size):
    """A limit to the size of files stops a write in the midst, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 20])
def test_a_full_disk_is_an_error_and_leaves_whole_lines(path, room):
    metrics = filled(path, LINES[:2])
    before = path.read_bytes()
    for _ in range(2):
        with (
            full_disk(len(before) + room),
            pytest.raises(OSError, match=re.escape(str(path))),
        ):
            metrics.add(LINES[2])
        assert path.read_bytes() == before
    metrics.add(LINES[2])
    assert metrics.lines() == LINES[:3]


def test_a_full_disk_leaves_a_cut_undone(path):
    metrics = filled(path)
    before = path.read_bytes()
    with full_disk(20), pytest.raises(OSError, match="large"):
        metrics.cut(3)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


DAMAGED = [
    b'{"step": 2, "train_n',
    b'{"step": 2} {"step": 3}',
    b"",
    b"\0\0\0\0",
    b'{"step": 2, "a": "\xff"}',
    b"[2]",
    b'{"a": 2}',
    b'{"step": 2.5}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("damaged", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_in_the_midst_is_named_and_the_rest_is_read(path, damaged):
    raw = [json.dumps(line).encode() for line in LINES]
    raw[1] = damaged
    path.write_bytes(b"\n".join(raw) + b"\n")
    metrics = Metrics(path)
    with pytest.warns(UserWarning, match=r"metrics\.jsonl, line 2: damaged and left out"):
        assert metrics.lines() == [LINES[0], *LINES[2:]]
    metrics.cut(3)
    assert path.read_bytes() == b"\n".join(raw[:3]) + b"\n"


def test_the_constants_that_python_writes_are_read_too(path):
    path.write_text('{"step": 1, "a": Infinity, "b": -Infinity, "c": {"d": [1]}}\n')
    assert read(path) == ([{"step": 1, "a": math.inf, "b": -math.inf, "c": {"d": [1]}}], [])


def test_a_cut_takes_away_what_comes_after_and_events_with_it(path):
    metrics = filled(path, [*LINES, {"step": 5, "event": "rolled back", "to": 3}])
    kept = path.read_bytes().splitlines(keepends=True)[:3]
    metrics.cut(3)
    assert path.read_bytes() == b"".join(kept)
    metrics.add({"step": 3, "event": "rolled back", "from": 5})
    metrics.add(LINES[3])
    assert [line["step"] for line in metrics.lines()] == [1, 2, 3, 3, 4]
    metrics.cut(0)
    assert path.read_bytes() == b""


def test_a_cut_keeps_lines_to_the_byte(path):
    raw = b'{"step":1,"a":1.50}\n{ "a": NaN, "step": 2 }\n'
    path.write_bytes(raw + b'{"step": 3}\n')
    Metrics(path).cut(2)
    assert path.read_bytes() == raw


@pytest.fixture
def disk(monkeypatch):
    """The names of what is made durable, and of what takes a place, in their order."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc to name descriptors")
    calls, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def replaced(source, target):
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    return calls


def test_a_cut_is_on_the_disk_before_and_after_it_takes_the_place(path, disk):
    metrics = filled(path)
    assert disk == []
    metrics.cut(3)
    assert disk == [f"{path}.writing", "replace", str(path.parent)]
    metrics.cut(3)
    assert len(disk) == 3  # there is nothing to take away


def test_lines_are_made_durable_when_it_is_asked_for(path, disk):
    metrics = Metrics(path)
    metrics.sync()
    assert disk == []
    metrics.add(LINES[0])
    metrics.sync()
    assert disk == [str(path), str(path.parent)]


def test_without_tensorboardx_it_is_said_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxlstm\[tensorboard\]'"):
        Metrics(path, tensorboard=path.parent / "board")
    Metrics(path).close()


def board_events(folder):
    """What TensorBoard reads: the records of all files, in the order of their names."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        assert "tfevents" in path.name
        raw, place = path.read_bytes(), 0
        while place < len(raw):
            (length,) = struct.unpack_from("<Q", raw, place)
            yield Event.FromString(raw[place + 12 : place + 12 + length])
            place += length + 16  # the length, its checksum, the record, its checksum


def board_points(folder):
    """{tag: [(step, value), ...]}, purged as TensorBoard does at a session's start but the first.

    As `_CheckForRestartAndMaybePurge` of tensorboard 2.21's plugin_event_accumulator.
    """
    points, starts = {}, 0
    for event in board_events(folder):
        if event.session_log.status == event.session_log.START:
            starts += 1
            if starts > 1:
                points = {tag: [p for p in ps if p[0] < event.step] for tag, ps in points.items()}
        for value in event.summary.value:
            points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


def test_tensorboard_has_the_same_curves_without_doubled_points(path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    folder = path.parent / "a" / "board"
    metrics = Metrics(path, tensorboard=folder)
    assert not folder.exists()  # before there is something to show
    for line in LINES:
        metrics.add(line | {"name": "x", "good": True})
    metrics.add({"step": 5, "event": "skipped", "norm": 9})
    first = board_points(folder)  # flushed, whatever happens next
    assert list(first) == ["train_nats"]
    np.testing.assert_allclose(first["train_nats"], [(n, 3 / n) for n in range(1, 6)])
    metrics.cut(3)
    metrics.add({"step": 4, "train_nats": math.inf})
    metrics.close()
    metrics.add({"step": 5, "train_nats": 0.5})
    metrics.close()
    after = Metrics(path, tensorboard=folder)  # a new process
    after.cut(4)
    after.add({"step": 5, "train_nats": 0.25})
    after.close()
    last = board_points(folder)["train_nats"]
    assert last == [*first["train_nats"][:3], (4, math.inf), (5, 0.25)]
    assert last[3:] == [(x["step"], x["train_nats"]) for x in after.lines()[3:]]


def test_a_second_cut_takes_nothing_back_of_the_first_on_tensorboard(path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    metrics = Metrics(path, tensorboard=path.parent / "board")
    for line in LINES:
        metrics.add(line)
    metrics.cut(3)
    metrics.cut(4)
    metrics.add({"step": 7, "train_nats": 0.5})
    metrics.close()
    assert [n for n, _ in board_points(path.parent / "board")["train_nats"]] == [1, 2, 3, 7]


def test_a_full_disk_is_an_error_for_tensorboard_too_and_loses_nothing(path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    folder = path.parent / "board"
    metrics = Metrics(path, tensorboard=folder)
    metrics.add(LINES[0])
    (file,) = folder.iterdir()
    with full_disk(file.stat().st_size + 5), pytest.raises(OSError, match="large"):
        metrics.add(LINES[1])
    assert metrics.lines() == LINES[:2]
    metrics.add(LINES[2])
    metrics.close()
    assert [step for step, _ in board_points(folder)["train_nats"]] == [1, 2, 3]
