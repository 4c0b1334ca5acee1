"""Reading what is damaged, what can't be read just now, and what is being written."""

import errno
import os

import numpy as np
import pytest

from jaxlstm.train import arrays, restoring
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.manifest import CheckpointError, DamagedError

STATE = {"params": np.arange(6.0), "more": np.ones(2)}
PASSING = ("EMFILE", "ENFILE", "ENOMEM", "EIO", "ESTALE", "EACCES")


@pytest.fixture
def folder(tmp_path):
    with Checkpoints(tmp_path, asynchronous=False) as store:
        for step in (1, 2):
            store.save(step, STATE)
    return tmp_path


def refuse(patch, name, error):
    """Opening a file of step 2 fails."""
    opened = os.open

    def refused(path, *arguments, **options):
        if str(path).endswith(f"/2/{name}"):
            raise OSError(getattr(errno, error), error, str(path))
        return opened(path, *arguments, **options)

    patch.setattr(os, "open", refused)


def orbax_fails(patch):
    def failing():
        raise ValueError("too many open files, says TensorStore")

    patch.setattr(arrays, "_checkpointer", failing)


@pytest.mark.parametrize("error", PASSING)
@pytest.mark.parametrize("name", ["manifest.json", "arrays/_METADATA", "arrays/params/0"])
def test_an_error_that_may_pass_sets_nothing_aside(folder, monkeypatch, name, error):
    with Checkpoints(folder) as store:
        with monkeypatch.context() as patch:
            refuse(patch, name, error)
            if name.endswith("0"):
                orbax_fails(patch)
            for _ in range(2):
                with pytest.raises(OSError, match=f"{error}.*/2/{name}"):
                    store.restore(STATE)
        assert store.restore(STATE).step == 2


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(folder, monkeypatch):
    scan = os.scandir

    def refused(path):
        if str(path).endswith("/2/arrays/params"):
            raise OSError(errno.EMFILE, "too many open files", str(path))
        return scan(path)

    with Checkpoints(folder) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", refused)
            with pytest.raises(OSError, match="too many"):
                store.restore(STATE)
        assert store.restore(STATE).step == 2


@pytest.mark.parametrize("error", ["ENOENT", "ENOTDIR", "ELOOP", "EINVAL", "ENXIO"])
def test_what_is_not_the_file_it_must_be_is_damage(folder, monkeypatch, error):
    with Checkpoints(folder) as store, monkeypatch.context() as patch:
        refuse(patch, "manifest.json", error)
        assert store.restore(STATE).step == 1
    assert (folder / "2.damaged").exists()


def test_orbax_at_fault_is_told_from_bytes_at_fault(folder, monkeypatch):
    with Checkpoints(folder) as store:
        with monkeypatch.context() as patch:
            orbax_fails(patch)
            with pytest.raises(
                CheckpointError, match=r"2: sound, but can't be read now \(too many"
            ):
                store.restore(STATE)
            assert restoring.steps(folder) == [1, 2]
            (folder / "2" / "arrays" / "params" / "0").write_bytes(bytes(48))
            with pytest.raises(DamagedError, match="params is damaged"):
                restoring.restore(folder, 2, STATE)
        found = store.restore(STATE)
    assert (found.step, len(found.warnings)) == (1, 1)


def test_what_was_set_aside_is_told_until_the_run_is_past_it(folder):
    (folder / "2" / "manifest.json").unlink()
    with Checkpoints(folder, asynchronous=False) as store:
        assert "set aside as 2.damaged" in store.restore(STATE).warnings[0]
        (folder / "0.damaged").mkdir()
        (folder / "x.damaged").mkdir()
        for found in (store.restore(STATE), restoring.restore_part(folder, STATE["params"])):
            assert found.step == 1
            assert found.warnings == [f"checkpoint {folder / '2.damaged'}: was set aside before"]
        store.save(2, STATE)
        assert store.restore(STATE).warnings == []


READS = {
    "restore_latest": lambda folder: restoring.restore_latest(folder, STATE),
    "restore_part": lambda folder: restoring.restore_part(folder, STATE["params"]),
}


@pytest.mark.parametrize("way", READS)
@pytest.mark.parametrize("error", [None, "ESTALE"])
def test_a_writer_that_took_away_what_was_listed_has_left_a_newer_one(
    folder, monkeypatch, way, error
):
    read, last = arrays.read, 2

    def outrun(place, *arguments, **options):
        nonlocal last
        if place.parent.name.isdecimal() and last < 5:  # while the newest so far is being read
            last += 1
            store.save(last, STATE)
            if error:  # as NFS says of a file that is gone
                raise OSError(getattr(errno, error), error)
        return read(place, *arguments, **options)

    with Checkpoints(folder, keep=1, asynchronous=False) as store:
        monkeypatch.setattr(arrays, "read", outrun)
        found = READS[way](folder)
    assert (found.step, found.warnings) == (5, [])


def test_a_step_that_is_being_written_again_is_not_damaged(folder, monkeypatch):
    read, newer, again = arrays.read, {**STATE, "more": np.zeros(2)}, []

    def outrun(place, *arguments, **options):
        if place.parent.name == "2" and not again:
            again.append(place)
            store.save(2, newer)
            raise DamagedError("one half is of the older, the other of the newer")
        return read(place, *arguments, **options)

    with Checkpoints(folder, asynchronous=False) as store:
        monkeypatch.setattr(arrays, "read", outrun)
        found = restoring.restore_latest(folder, STATE)
    assert (found.step, found.warnings) == (2, [])
    np.testing.assert_array_equal(found.state["more"], newer["more"])


def test_a_step_that_is_between_its_two_names_has_not_never_been(folder):
    (folder / "1").rename(folder / "1.replaced")
    (folder / "2").rename(folder / "2.deleting")
    with pytest.raises(CheckpointError, match=r"no sound checkpoint is left in .*: 1\.replaced"):
        restoring.restore_latest(folder, STATE)


def test_a_part_is_found_by_its_own_name(tmp_path):
    with Checkpoints(tmp_path, asynchronous=False) as store:
        store.save(1, {"a.b": STATE, "a": {"b": np.zeros(1)}})
    found = restoring.restore_part(tmp_path, STATE, "a.b")
    np.testing.assert_array_equal(found.state["params"], STATE["params"])
