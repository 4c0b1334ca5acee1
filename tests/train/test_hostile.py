"""Checkpoints of one who knows the format: every hash is right, and what is hashed is not."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from jaxlstm.train import files, restoring
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.manifest import DamagedError, MismatchError

STATE = {"params": {"a": np.arange(6.0).reshape(2, 3)}, "b": np.ones(2, np.int8)}


@pytest.fixture
def folder(tmp_path):
    with Checkpoints(tmp_path / "c", identity={"seed": 0}, asynchronous=False) as store:
        for step in (1, 2):
            store.save(step, STATE, score=float(step))
    return tmp_path / "c"


def listed(folder):
    return json.loads((folder / "2" / "manifest.json").read_text())["manifest"]


def sign(folder, manifest):
    body = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(body.encode()).hexdigest()
    (folder / "2" / "manifest.json").write_text(f'{{"sha256": "{digest}", "manifest": {body}}}')


def forge(folder, name, raw):
    (folder / "2" / "arrays" / name).write_bytes(raw)
    entry = [len(raw), hashlib.sha256(raw).hexdigest()]
    sign(folder, {**listed(folder), "files": {**listed(folder)["files"], name: entry}})


def refused(folder, complaint):
    found = restoring.restore_latest(folder, STATE)
    assert found.step == 1
    np.testing.assert_array_equal(found.state["params"]["a"], STATE["params"]["a"])
    with pytest.raises(DamagedError, match=complaint):
        restoring.restore(folder, 2, STATE)


@pytest.mark.parametrize("whole", [[], None, "text", 3, {}])
def test_a_manifest_of_another_kind(folder, whole):
    sign(folder, whole if whole != {} else {"format": 2})
    refused(folder, "no sound manifest")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("identity", None), ("made_with", []), ("files", None), ("arrays", 3), ("step", "2")],
        *[("step", True), ("score", "x"), ("score", []), ("score", 1), ("finite", None)],
    ],
)
def test_a_field_of_another_kind(folder, field, value):
    sign(folder, {**listed(folder), field: value})
    refused(folder, rf"no sound manifest \({field} is amiss\)")
    assert restoring.best(folder) == 1


@pytest.mark.parametrize("field", ["files", "extra", "score", "finite", "identity", "made_with"])
def test_a_field_that_is_missing(folder, field):
    manifest = listed(folder)
    del manifest[field]
    sign(folder, manifest)
    refused(folder, rf"no sound manifest \({field} is amiss\)")
    with Checkpoints(folder, identity={"seed": 0}, asynchronous=False) as store:
        store.save(3, STATE)  # which looks through those that are there
    assert restoring.best(folder) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", ","), ("dtype", "f4,f4"), ("dtype", [[]]), ("key", 3), ("shape", [[2]])],
)
def test_a_leaf_that_is_none(folder, field, value):
    manifest = listed(folder)
    manifest["arrays"]["b"][field] = value
    sign(folder, manifest)
    refused(folder, "no sound manifest")
    with pytest.raises(DamagedError, match="no sound manifest"):  # of which b is no part
        restoring.restore_part(folder, STATE["params"], step=2)


def test_a_deep_manifest(folder):
    manifest = listed(folder)
    for depth in (300, 700, 900, 950, 100_000):
        body = json.dumps({**manifest, "identity": {"seed": "HERE"}}, sort_keys=True)
        body = body.replace('"HERE"', "[" * depth + "]" * depth).replace(" ", "")
        digest = hashlib.sha256(body.encode()).hexdigest()
        (folder / "2" / "manifest.json").write_text(f'{{"sha256":"{digest}","manifest":{body}}}')
        with pytest.raises((DamagedError, MismatchError)) as error:
            restoring.restore(folder, 2, STATE, identity={"seed": 0})
        assert len(str(error.value)) < 1000


def test_a_manifest_in_another_encoding(folder):
    path = folder / "2" / "manifest.json"
    path.write_bytes(path.read_text().encode("utf-16"))
    refused(folder, "no sound manifest")


@pytest.mark.parametrize("name", ["_METADATA", "b/.zarray"])
@pytest.mark.parametrize("raw", [b"[]", b"null", b"3", b"[" * 2000])
def test_a_description_that_is_none(folder, name, raw):
    forge(folder, name, raw)
    refused(folder, "checkpoint")


def test_a_description_of_a_wide_dtype_does_not_abort(folder):
    description = json.loads((folder / "2" / "arrays" / "b" / ".zarray").read_text())
    forge(folder, "b/.zarray", json.dumps({**description, "dtype": "|V4000000000"}).encode())
    refused(folder, r"b/\.zarray says dtype '\|V4000000000', not '\|i1'")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tree, entry: tree.update(use_zarr3=True), "another format"),
        (lambda tree, entry: tree.update(use_ocdbt=True), "another format"),
        (lambda tree, entry: tree.update(tree_metadata={}), "_METADATA is of other arrays"),
        (lambda tree, entry: entry["value_metadata"].update(skip_deserialize=True), "_METADATA"),
        (lambda tree, entry: entry["value_metadata"].update(value_type="None"), "_METADATA says"),
        (lambda tree, entry: entry.update(key_metadata=[]), "of other arrays"),
        (lambda tree, entry: entry["key_metadata"][0].update(key_type=1), "of other arrays"),
        (lambda tree, entry: entry["key_metadata"].append(entry["key_metadata"][0]), "of other"),
    ],
)
def test_a_tree_that_is_not_the_states(folder, change, complaint):
    tree = json.loads((folder / "2" / "arrays" / "_METADATA").read_text())
    change(tree, tree["tree_metadata"]["('b',)"])
    forge(folder, "_METADATA", json.dumps(tree).encode())
    refused(folder, complaint)


def test_a_description_that_is_too_long_is_not_read(folder):
    raw = (folder / "2" / "arrays" / "_METADATA").read_bytes()
    forge(folder, "_METADATA", raw + b" " * 100_000)
    refused(folder, r"_METADATA has \d+ bytes, says the manifest")


def test_a_copy_under_another_step(folder):
    shutil.copytree(folder / "2", folder / "7")
    assert restoring.restore_latest(folder, STATE).step == 2
    assert restoring.restore_part(folder, STATE["params"]).step == 2
    assert list(restoring.standing(folder)) == [1, 2]


def test_a_number_that_is_no_step(folder):
    for name in ("007", "02", "²", "1e3", "-1"):
        shutil.copytree(folder / "2", folder / name)
    assert restoring.steps(folder) == [1, 2]
    shutil.rmtree(folder / "2")
    with Checkpoints(folder, identity={"seed": 0}) as store:
        assert store.restore(STATE).step == 1


def test_a_file_where_the_folder_should_be_is_no_folder_without_checkpoints(tmp_path):
    (tmp_path / "c").write_text("")
    with pytest.raises(NotADirectoryError):
        restoring.restore_latest(tmp_path / "c", STATE)


def test_a_link_where_the_damaged_one_should_go(folder):
    (folder / "2.damaged").symlink_to("nowhere")
    (folder / "2" / "manifest.json").unlink()
    with Checkpoints(folder, identity={"seed": 0}) as store:
        assert "set aside as 2.damaged2" in store.restore(STATE).warnings[0]
    assert (folder / "2.damaged").is_symlink()


def test_a_link_where_the_replaced_one_should_go_back(folder):
    (folder / "2").rename(folder / "2.replaced")
    (folder / "2").symlink_to("nowhere")
    with Checkpoints(folder, identity={"seed": 0}) as store:
        assert store.restore(STATE).step == 1


@pytest.mark.parametrize("name", ["notes.writing", "x.deleting", "x.replaced", ".replaced"])
def test_what_no_writer_left_is_not_taken_away(folder, name):
    (folder / name).mkdir()
    with Checkpoints(folder, identity={"seed": 0}, asynchronous=False) as store:
        store.save(3, STATE)
    assert (folder / name).is_dir()


def test_folders_in_folders_are_an_error_in_words(folder, monkeypatch):
    def too_deep(path):  # as Python up to 3.13 says of a thousand
        raise RecursionError

    (folder / "3.writing").mkdir()
    monkeypatch.setattr(shutil, "rmtree", too_deep)
    with pytest.raises(OSError, match=r"too deep to delete.*3\.writing"):
        Checkpoints(folder)


def test_a_lock_that_is_another_file_too_is_not_emptied(folder):
    other = folder.parent / "other"
    other.write_text("mine")
    (folder / "LOCK").unlink()
    os.link(other, folder / "LOCK")
    with pytest.raises(OSError, match="not a file of that one name"):
        Checkpoints(folder)
    assert other.read_text() == "mine"
    (folder / "LOCK").unlink()
    with Checkpoints(folder, identity={"seed": 0}) as store:  # nothing is held
        assert store.restore(STATE).step == 2


def test_a_pipe_for_a_lock_or_a_file_is_not_waited_for(folder):
    (folder / "LOCK").unlink()
    os.mkfifo(folder / "LOCK")
    with pytest.raises(OSError, match="not a file of that one name"):
        Checkpoints(folder)
    for name in ("manifest.json", "arrays/_METADATA"):
        shutil.copytree(folder / "1", folder / "spare")
        (folder / "1" / name).unlink()
        os.mkfifo(folder / "1" / name)
        with pytest.raises(DamagedError):
            restoring.restore(folder, 1, STATE)
        shutil.rmtree(folder / "1")
        (folder / "spare").rename(folder / "1")


def test_contents_are_of_the_file_itself(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    assert files.contents(tmp_path / "a", 2) == b"ab"
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for name in ("link", "pipe", "", "none"):
        with pytest.raises(OSError):  # noqa: PT011 - the system's words
            files.contents(tmp_path / name, 2)
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)
