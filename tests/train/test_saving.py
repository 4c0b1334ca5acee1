"""Saves that must not be made, that fail, or that nobody waits for."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxlstm.train import arrays, restoring, tidying
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.manifest import MismatchError, SaveError


def state(step):
    return {"params": np.full(3, float(step))}


def filled(folder, *steps, **options):
    with Checkpoints(folder, asynchronous=False, **options) as store:
        for step in steps:
            store.save(step, state(step))
    return folder


def test_a_save_below_the_newest_is_refused_and_takes_nothing_away(tmp_path):
    filled(tmp_path, 90, 100)
    with Checkpoints(tmp_path, asynchronous=False) as store:
        words = r"step: expected 100 or more, the newest in .*, got 10; restore that one"
        with pytest.raises(ValueError, match=words):
            store.save(10, state(10))
        assert restoring.steps(tmp_path) == [90, 100]
        assert store.restore(state(0)).step == 100
        store.save(100, state(100))
        store.save(101, state(101))
    assert restoring.steps(tmp_path) == [100, 101]


def test_after_a_damaged_one_the_run_goes_on_from_the_older(tmp_path):
    filled(tmp_path, 90, 100)
    (tmp_path / "100" / "manifest.json").unlink()
    with Checkpoints(tmp_path, asynchronous=False) as store:
        with pytest.raises(ValueError, match="expected 100 or more"):
            store.save(91, state(91))
        assert store.restore(state(0)).step == 90
        store.save(91, state(91))
    assert restoring.steps(tmp_path) == [90, 91]


def test_what_was_just_written_is_kept_whatever_else_is_there(tmp_path):
    filled(tmp_path, 10, 90, 100)
    tidying.prune(tmp_path, 1, written=90)
    assert restoring.steps(tmp_path) == [90, 100]


def test_checkpoints_of_another_run_are_not_taken_away(tmp_path):
    filled(tmp_path, 1, 2, identity={"seed": 0})
    with Checkpoints(tmp_path, identity={"seed": 1}, keep=1, asynchronous=False) as store:
        for _ in range(2):
            words = "of another run; use another folder:\n  seed: 0 there, 1 here"
            with pytest.raises(MismatchError, match=words):
                store.save(3, state(3))
    assert restoring.steps(tmp_path) == [1, 2]
    filled(tmp_path, 3, identity={"seed": 0})
    assert restoring.steps(tmp_path) == [2, 3]


PROGRAM = """
import sys
import numpy as np
from jaxlstm.train import arrays
from jaxlstm.train.checkpoints import Checkpoints

def full(*_):
    raise OSError(28, "No space left on device")

if sys.argv[2:]:
    arrays.sync = full
store = Checkpoints(sys.argv[1])
store.save(1, {"params": np.full(3, 1.0), "more": np.zeros(3_000_000)})
"""


def ended(*arguments):
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    root = Path(restoring.__file__).parents[2]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)


def test_a_save_that_nobody_waits_for_is_there_after_the_process(tmp_path):
    assert ended(tmp_path).stderr == ""
    found = restoring.restore_part(tmp_path, state(0)["params"])
    np.testing.assert_array_equal(found.state, state(1)["params"])


def test_a_failure_that_nobody_waits_for_is_told_at_the_end(tmp_path):
    said = ended(tmp_path, "full").stderr
    assert f"SaveError: checkpoint {tmp_path}/1 could not be written" in said
    assert "No space left on device" in said


def test_a_step_whose_second_rename_fails_is_as_it_was(tmp_path, monkeypatch):
    filled(tmp_path, 1)
    rename = Path.rename

    def refused(self, target):
        if self.name == "1.writing":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with Checkpoints(tmp_path, keep=1, asynchronous=False) as store:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", refused)
            with pytest.raises(SaveError, match="1 could not be written"):
                store.save(1, state(7))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "LOCK"]
        assert (store.restore(state(0)).state["params"] == 1).all()


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """Checkpoints with one of step 1, and a background save of step 2 that fails."""

    def full(*_):
        raise OSError(28, "No space left on device")

    with Checkpoints(tmp_path) as store:
        store.save(1, state(1))
        store.wait()
        with monkeypatch.context() as patch:
            patch.setattr(arrays, "sync", full)
            store.save(2, state(2))
            store._thread.join()
        yield store
        store.wait()


def test_a_save_after_one_that_failed_is_made(failing):
    with pytest.raises(SaveError, match="2 could not be written"):
        failing.save(3, state(3))
    failing.wait()
    assert restoring.steps(failing.folder) == [1, 3]


def test_a_save_that_is_refused_leaves_the_failure_before_it_to_be_told(failing):
    with pytest.raises(ValueError, match="step: expected an integer"):
        failing.save(-1, state(3))
    with pytest.raises(SaveError, match="2 could not be written"):
        failing.wait()


@pytest.mark.parametrize("ask", ["poll", "wait"])
def test_restoring_leaves_the_failure_to_be_told(failing, ask):
    assert failing.restore(state(0)).step == 1
    with pytest.raises(SaveError, match="2 could not be written"):
        getattr(failing, ask)()
    getattr(failing, ask)()


def test_after_its_end_nothing_is_written_and_nothing_set_aside(tmp_path):
    store = Checkpoints(tmp_path, asynchronous=False)
    store.save(1, state(1))
    store.save(2, state(2))
    store.close()
    with pytest.raises(ValueError, match="are closed"):
        store.save(3, state(3))
    assert store.restore(state(0)).step == 2
    (tmp_path / "2" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="are closed"):
        store.restore(state(0))
    assert restoring.steps(tmp_path) == [1, 2]


def test_a_folder_that_cannot_be_tidied_is_not_locked(tmp_path, monkeypatch):
    (tmp_path / "1.writing").write_text("")

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        for _ in range(2):
            with pytest.raises(OSError, match="Read-only"):
                Checkpoints(tmp_path)
    Checkpoints(tmp_path).close()
