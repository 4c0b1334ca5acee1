import doctest
import fcntl
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.runs import folder, tables
from experiments.runs.__main__ import main
from jaxlstm.train.lock import holder_of

CONFIG = {"train": "", "hidden": 8, "dropout": 0.1, "steps": 100, "seed": 0, "cache": "c"}
HISTORY = [
    {"step": n, "epoch": 0, "train_nats": 5 / n, "seconds": n / 7}
    | ({"valid_nats": abs(n - 60) / 100 + 1} if n % 20 == 0 else {})
    for n in range(5, 101, 5)
]


def make(path, lines=HISTORY, result=None, manifests=None, **fields):
    """The folder of a run."""
    config = CONFIG | fields
    identity = {name: value for name, value in config.items() if name != "cache"}
    path.mkdir(parents=True)
    stored = {"identity": identity | {"platform": "cpu"}, "config": config}
    (path / "config.json").write_text(json.dumps(stored))
    if lines is not None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / "metrics.jsonl").write_text(text)
    if result is not None:
        (path / "metrics.json").write_text(json.dumps(result))
    for name, manifest in (manifests or {}).items():
        (path / "checkpoints" / name).mkdir(parents=True)
        if manifest is not None:
            place = path / "checkpoints" / name / "manifest.json"
            place.write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return path


def shown(capsys, *arguments):
    main([str(x) for x in arguments])
    return capsys.readouterr().out


def row(text, name):
    """The cells of a table's line that begins with a name."""
    (line,) = [x for x in text.splitlines() if x.split("  ")[0].strip() == str(name)]
    return [x.strip() for x in line.split("  ") if x.strip()]


def test_a_list_tells_runs_apart_and_how_far_they_are(tmp_path, capsys):
    a = make(tmp_path / "a", result={"steps": 100})
    b = make(tmp_path / "sweep" / "b", HISTORY[:5], hidden=16, cache="elsewhere")
    c = make(tmp_path / "sweep" / "deep" / "c", None, hidden=16, seed=3)
    make(tmp_path / "too" / "deep" / "to" / "find")
    (tmp_path / ".hidden").mkdir()
    os.utime(b / "config.json", (2**30, 2**30))
    os.utime(b / "metrics.jsonl", (2**30 + 90, 2**30 + 90))
    text = shown(capsys, "list", tmp_path)
    header = "run config steps train best valid state last change"
    assert text.splitlines()[0].split() == header.split()
    assert row(text, a)[1:6] == [
        "hidden=8 seed=0", "100 of 100", "0.0500", "1.0000", "finished",
    ]  # fmt: skip
    assert row(text, b)[1:] == [
        "hidden=16 seed=0", "25 of 100", "0.2000", "1.4000", "interrupted",
        tables.moment(2**30 + 90),
    ]  # fmt: skip
    assert row(text, c)[1:6] == ["hidden=16 seed=3", "0 of 100", "-", "-", "interrupted"]
    assert f"\n{tmp_path / 'too'}: holds no run\n" in text
    assert "hidden/" not in text
    assert "cache" not in text


def test_a_list_of_one_run_is_of_that_folder(tmp_path, capsys):
    a = make(tmp_path / "a")
    assert row(shown(capsys, "list", a), a)[1] == "-"


def test_the_fields_that_tell_the_most_runs_apart_come_first(tmp_path):
    runs = [
        folder.read(
            make(tmp_path / str(n), a=n // 4, b=n % 2, c=n // 2, d=n % 2, e=n // 4, new=[n])
        )
        for n in range(3)
    ]
    runs.append(folder.read(make(tmp_path / "old", a=9, b=1, c=1, d=1, e=9)))
    assert tables.describe(runs) == [
        "a=0 b=0 c=0 new=[0]",
        "a=0 b=1 c=0 new=[1]",
        "a=0 b=0 c=1 new=[2]",
        "a=9 b=1 c=1",
    ]


LOCKED = """import fcntl, sys
with open(sys.argv[1], "a") as file:
    fcntl.lockf(file, int(sys.argv[2]))
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_whose_lock_is_held_is_running_and_goes_on_holding_it(tmp_path, capsys):
    a = make(tmp_path / "a", result={"steps": 100}, manifests={"20": {"step": 20}})
    lock = a / "checkpoints" / "LOCK"
    assert holder_of(lock) is None  # there is none
    lock.touch()
    assert row(shown(capsys, "list", a), a)[5] == "finished"  # there is one, and nobody holds it
    command = [sys.executable, "-c", LOCKED, str(lock), str(int(fcntl.LOCK_EX))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        for _ in range(2):
            assert row(shown(capsys, "list", a), a)[5] == "running"
        assert holder_of(lock) == process.pid
        assert f"running (process {process.pid})" in shown(capsys, "show", a)
        with open(lock, "a") as file, pytest.raises(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert row(shown(capsys, "list", a), a)[5] == "finished"


BROKEN = {
    "no_config": ({"metrics.jsonl": ""}, "it has no config.json"),
    "cut_off": ({"config.json": '{"identity": {"a'}, "config.json is damaged"),
    "binary": ({"config.json": b"\xff\xfe\0"}, "config.json is damaged"),
    "model": ({"config.json": '{"hidden_size": 768}'}, "config.json has no 'identity'"),
    "array": ({"config.json": "[1]"}, "config.json is of something else"),
    "values": ({"config.json": '{"identity": 1, "config": 2}'}, "config.json is of something else"),
    "notes": ({"notes.txt": "buy milk"}, "holds no run"),
    "nested": ({"config.json": "[" * 100_000}, "config.json is damaged"),
}


def test_broken_and_foreign_folders_are_named_and_the_others_listed(tmp_path, capsys):
    a = make(tmp_path / "a")
    for name, (files, _) in BROKEN.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            content = content if isinstance(content, bytes) else content.encode()
            (tmp_path / name / file).write_bytes(content)
    (tmp_path / "a_folder" / "config.json").mkdir(parents=True)
    (tmp_path / "a file").write_text("")
    lines = shown(capsys, "list", tmp_path).splitlines()
    assert lines[1].startswith(str(a))
    assert len(lines) == 2 + len(BROKEN) + 1
    for name, (_, complaint) in BROKEN.items():
        (line,) = [x for x in lines if x.startswith(f"{tmp_path / name}:")]
        assert complaint in line
    for name in ("cut_off", "no_config"):
        with pytest.raises(ValueError, match=f"{name}: holds no run"):
            main(["show", str(tmp_path / name)])


def test_a_folder_that_cant_be_read_does_not_end_the_list(tmp_path, capsys, monkeypatch):
    a, closed = make(tmp_path / "a"), tmp_path / "closed"
    closed.mkdir()
    exists = Path.exists

    def refused(path, **more):
        if path.parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path, **more)

    monkeypatch.setattr(Path, "exists", refused)
    lines = shown(capsys, "list", tmp_path).splitlines()
    assert lines[1].startswith(str(a))
    assert lines[2].startswith(f"{closed}: can't be read ([Errno 13] Permission denied")


def test_what_is_damaged_in_a_run_is_named_and_the_rest_is_shown(tmp_path, capsys):
    a = make(tmp_path / "a", result={}, manifests={"20": "{", "40": {"step": 40}})
    raw = (a / "metrics.jsonl").read_text().splitlines(keepends=True)
    (a / "metrics.jsonl").write_text("".join([*raw[:2], "garbage\n", *raw[3:], '{"st']))
    (a / "metrics.json").write_text("{")
    for command in (["list", a], ["show", a], ["plot", a, "--out", tmp_path / "x.png"]):
        text = shown(capsys, *command)
        assert "metrics.jsonl, line 3: damaged and left out" in text
        assert f"{a}: metrics.json is damaged" in text
    assert row(shown(capsys, "list", a), a)[2:4] == ["100 of 100", "0.0500"]
    assert "manifest.json is damaged" in shown(capsys, "show", a)


def test_all_about_a_run(tmp_path, capsys):
    lines = [
        *HISTORY[:10],
        {"step": 50, "event": "skipped", "norm": math.inf},
        *HISTORY[10:],
        {"step": 70, "event": "rolled back", "from": 90, "because": "the loss\nrose" * 5},
    ]
    manifests = {
        "100": {"sha256": "", "manifest": {"score": 1.25, "created": "2026-11-20T12:00:00Z"}},
        "20": {"step": 20, "score": 1.5, "created": 2**30, "finite": True},
        "40": None,
        "50": {"manifest": 3},
        "55": {"manifest": {"finite": False, "created": [2026]}},
        "60.damaged": {"step": 60},
        "80.writing": None,
    }
    path = "/a/long/path/" * 5
    result = {"test": {"nats": 1.5, "same": None}, "steps": 100}
    a = make(tmp_path / "a", lines, result, manifests, cache=path)
    (a / "checkpoints" / "LOCK").touch()
    text = shown(capsys, "show", a)
    assert text.startswith(f"{a}: finished, 100 of 100 steps, last change 20")
    assert "best valid: 1.0000 at step 60\n" in text
    parts = {part.split("\n")[0]: part.split("\n")[1:] for part in text.rstrip().split("\n\n")}
    assert [x.split() for x in parts["config"]] == [
        ["train"], ["hidden", "8"], ["dropout", "0.1"], ["steps", "100"], ["seed", "0"],
        ["cache", path],
    ]  # fmt: skip
    assert [x.split() for x in parts["identity, where it says more"]] == [["platform", "cpu"]]
    history = parts["history, 20 of 20 lines"]
    assert history[0].split() == ["step", "epoch", "train_nats", "seconds", "valid_nats"]
    assert history[4].split() == ["20", "0", "0.2500", "2.8571", "1.4000"]
    assert [x.split() for x in parts["events"][1:]] == [
        ["50", "skipped", "norm=inf"],
        ["70", "rolled", "back", "from=90", *("because='" + r"the loss\nrose" * 5 + "'").split()],
    ]
    cells = (line.split("  ") for line in parts["checkpoints"][1:])
    found = [[x.strip() for x in line if x] for line in cells]
    assert [line[:3] for line in found] == [
        ["20", "1.5000", tables.moment(2**30)],
        ["40", "-", "-"],
        ["50", "-", "-"],
        ["55", "-", "[2026]"],
        ["100", "1.2500", tables.moment(1795176000)],  # by `date`
        ["60.damaged", "-", "-"],
        ["80.writing", "-", "-"],
    ]
    assert "No such file" in found[1][-1]
    assert found[2][-1] == "manifest.json is of something else"
    assert found[3][-1] == "not finite"
    assert found[5][-1] == found[6][-1] == "no finished checkpoint"
    assert [x.split() for x in parts["result"]] == [
        ["test.nats", "1.5"], ["test.same", "-"], ["steps", "100"],
    ]  # fmt: skip


def test_a_run_that_has_just_begun_can_be_shown(tmp_path, capsys):
    a = make(tmp_path / "a", None, steps=0)
    text = shown(capsys, "show", a)
    assert text.startswith(f"{a}: interrupted, 0 steps, last change")
    for nothing in ("history: none", "events: none", "checkpoints: none"):
        assert nothing in text


def test_a_long_history_is_thinned_and_keeps_its_ends_and_its_fullest_lines():
    lines = [{"step": n, "train_nats": 1.0} for n in range(1000)]
    steps = [line["step"] for line in tables.thinned(lines)]
    assert len(steps) == 20
    assert (steps[0], steps[-1]) == (0, 999)
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 54
    for n in (100, 500, 900):
        lines[n]["valid_nats"] = 1.0
    steps = [line["step"] for line in tables.thinned(lines)]
    assert len(steps) == 20
    assert {0, 100, 500, 900, 999} <= set(steps)
    assert steps == sorted(steps)
    for n in range(3, 997, 3):
        lines[n]["valid_nats"] = 1.0
    steps = [line["step"] for line in tables.thinned(lines)]
    assert len(steps) == 20
    assert [n for n in steps if n % 3 or n in (0, 999)] == [0, 999]
    assert tables.thinned([]) == []


def test_a_history_of_many_fields_says_what_it_leaves_out(tmp_path, capsys):
    a = make(tmp_path / "a", [{"step": 1} | {f"f{n}": n * 1e5 + 0.5 for n in range(9)}])
    text = shown(capsys, "show", a)
    assert "history, 1 of 1 lines, without f7, f8\n" in text
    assert "100,000" in text


def test_values_are_short_and_on_one_line():
    values = [None, True, 12345, 0.1 + 0.2, math.nan, [1, "a"], "x" * 50, "a\x1b[2Jb", {"a": {1}}]
    assert [tables.cell(v) for v in values] == [
        "-", "true", "12,345", "0.3", "nan", '[1, "a"]', "x" * 50, r"'a\x1b[2Jb'",
        '{"a": "{1}"}',
    ]  # fmt: skip
    assert [tables.short(v) for v in ("x" * 40, "x" * 41)] == ["x" * 40, "…" + "x" * 39]
    values = [None, 7, 2.0, 0.05, 1e-5, -12.34567, 12345.6, 1e30, 0.0, math.nan, math.inf, "a"]
    assert [tables.measure(v) for v in values] == [
        "-", "7", "2.0000", "0.0500", "1e-05", "-12.3457", "12,346", "1e+30", "0.0000", "nan",
        "inf", "a",
    ]  # fmt: skip
    assert tables.moment(1e30) == "1e+30"


def test_learning_curves_are_a_picture(tmp_path, capsys):
    a, b = make(tmp_path / "a$b_$"), make(tmp_path / "b", [{"step": 1, "train_nats": math.nan}])
    c = make(tmp_path / "c", None)
    out = tmp_path / "curves.png"
    text = shown(capsys, "plot", a, b, c, "--out", out)
    assert text.splitlines() == [f"written: {out}", f"{c}: has no train_nats"]
    assert out.read_bytes().startswith(b"\x89PNG")
    assert len(out.read_bytes()) > 5000
    shown(capsys, "plot", a, b, "--field", "valid_nats", "--out", tmp_path / "valid.png")
    with pytest.raises(ValueError, match="no run has a number 'x'; there is epoch, train_nats"):
        main(["plot", str(a), "--field", "x", "--out", str(tmp_path / "x.png")])
    assert not (tmp_path / "x.png").exists()
    with pytest.raises(ValueError, match="there is no field at all"):
        main(["plot", str(c)])


def test_without_matplotlib_it_is_said_what_to_install(tmp_path, monkeypatch):
    a = make(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxlstm\[experiments\]'"):
        main(["plot", str(a)])


def test_errors_are_words(tmp_path):
    command = [sys.executable, "-m", "experiments.runs"]
    for arguments, complaint in (
        (["list", tmp_path / "none"], "none: no such folder"),
        (["show", tmp_path / "none"], "none: no such folder"),
        (["plot", make(tmp_path / "a"), "--out", tmp_path / "no" / "x.png"], "No such file"),
    ):
        done = subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr
    done = subprocess.run([*command, "list", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0
    assert "interrupted" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    events = [{"step": n, "event": "skipped", "why": "x" * 99} for n in range(1000)]
    a = make(tmp_path / "a", events)
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.runs", "show", str(a)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline().startswith(str(a))
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


def test_an_empty_folder_has_no_runs(tmp_path, capsys):
    assert shown(capsys, "list", tmp_path) == f"{tmp_path}: holds no run\n"


def test_examples():
    assert doctest.testmod(tables).failed == 0
