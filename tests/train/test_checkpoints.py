import json
import os
import shutil
import subprocess
import sys
import threading
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import jaxlstm
from jaxlstm.train import arrays, manifest, restoring
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.lock import LockedError
from jaxlstm.train.manifest import CheckpointError, DamagedError, MismatchError, SaveError


class State(NamedTuple):
    params: dict
    step: np.ndarray
    key: jax.Array
    nothing: None = None


class Twins:
    """A pytree of which two leaves have the same path."""


def twins(_):
    return [(jax.tree_util.DictKey("twin"), np.zeros(1))] * 2, None


jax.tree_util.register_pytree_with_keys(Twins, twins, lambda *_: Twins())


def state(seed):
    rng = np.random.default_rng(seed)
    params = {
        "w": rng.normal(size=(5, 7)).astype(np.float32),
        "a.b/c": rng.normal(size=3),
        "half": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
        "empty": np.zeros((0, 3), np.float32),
        "zeros": -np.zeros((2, 2)),
    }
    return State(params, np.asarray(seed, np.uint32), jax.random.key(seed, impl="rbg"))


def like():
    return jax.eval_shape(lambda: state(0))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(raw(x), raw(y), strict=True), a, b)


def raw(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    x = np.asarray(jax.random.key_data(x) if is_key else x)
    return np.frombuffer(x.tobytes(), np.uint8).reshape(*x.shape, -1) if x.size else x


def filled(folder, *steps, **options):
    with Checkpoints(folder, asynchronous=False, **options) as store:
        for step in steps:
            store.save(step, state(step), {"epoch": step})
    return folder


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    filled(tmp_path, 3)
    found = restoring.restore(tmp_path, 3, like())
    same(found.state, state(3))
    assert (found.step, found.extra, found.score, found.warnings) == (3, {"epoch": 3}, None, [])
    assert jax.random.key_impl(found.state.key) == jax.random.key_impl(state(3).key)


def test_orbax_alone_reads_it_and_so_does_numpy(tmp_path):
    filled(tmp_path, 3)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.restore(tmp_path / "3" / "arrays")
    np.testing.assert_array_equal(tree["params.w"], state(3).params["w"])
    alone = np.fromfile(tmp_path / "3" / "arrays" / "params.w" / "0.0", np.float32)
    np.testing.assert_array_equal(alone.reshape(5, 7), state(3).params["w"])


def test_a_donated_buffer_does_not_reach_what_is_being_saved(tmp_path):
    grow = jax.jit(lambda a: a + 1, donate_argnums=0)
    a = jnp.zeros(100_000)
    with Checkpoints(tmp_path) as store:
        for step in range(3):
            store.save(step, a)
            a = grow(a)
            found = store.restore(jax.ShapeDtypeStruct(a.shape, a.dtype))
            assert (found.state == step).all()


def test_an_array_that_is_overwritten_does_not_either(tmp_path, monkeypatch):
    overwritten, digests = threading.Event(), arrays.digests
    monkeypatch.setattr(arrays, "digests", lambda a: overwritten.wait(60) and digests(a))
    a = np.zeros(3)
    with Checkpoints(tmp_path) as store:
        store.save(1, a)
        a += 1
        overwritten.set()
        assert (store.restore(a).state == 0).all()


def test_each_dtype_comes_back(tmp_path):
    numbers = np.arange(6).reshape(2, 3)
    arrays = {dtype: numbers.astype(jnp.dtype(dtype)) for dtype in manifest.DTYPES}
    with Checkpoints(tmp_path, asynchronous=False) as store:
        store.save(1, arrays)
        same(store.restore(arrays).state, arrays)


def test_the_newest_the_finite_and_the_best_are_kept(tmp_path):
    bad = state(0).params["w"] * np.nan
    with Checkpoints(tmp_path, keep=2, asynchronous=False) as store:
        for step, score in enumerate([3.0, 1.0, 2.0, float("nan"), 4.0]):
            store.save(step, state(step), score=score)
        assert restoring.steps(tmp_path) == [1, 3, 4]
        assert restoring.best(tmp_path) == 1
        for step in (5, 6, 7):
            now = state(step)
            store.save(step, now._replace(params={**now.params, "w": bad}))
    assert restoring.steps(tmp_path) == [1, 4, 6, 7]


def test_only_the_named_part_has_to_be_finite(tmp_path):
    endless = {"params": np.zeros(2), "best": np.float32(np.inf) * np.ones(())}
    with Checkpoints(tmp_path, keep=1, finite=lambda s: s["params"], asynchronous=False) as store:
        store.save(1, endless)
        store.save(2, {**endless, "params": np.full(2, np.nan)})
        assert restoring.steps(tmp_path) == [1, 2]
        store.save(3, endless)
    assert restoring.steps(tmp_path) == [3]


def test_saving_a_step_again_replaces_it(tmp_path):
    with Checkpoints(tmp_path, asynchronous=False) as store:
        store.save(1, state(1))
        store.save(1, state(2))
        same(store.restore(like()).state, state(2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "LOCK"]


@pytest.mark.parametrize("left", ["2.writing", "2.deleting", "1.replaced"])
def test_what_a_killed_writer_left_is_taken_away(tmp_path, left):
    filled(tmp_path, 1)
    shutil.copytree(tmp_path / "1", tmp_path / left)
    with Checkpoints(tmp_path) as store:
        assert store.restore(like()).step == 1
    assert not (tmp_path / left).exists()


def test_a_checkpoint_that_was_being_replaced_goes_back(tmp_path):
    filled(tmp_path, 1)
    (tmp_path / "1").rename(tmp_path / "1.replaced")
    with Checkpoints(tmp_path) as store:
        same(store.restore(like()).state, state(1))


def test_without_any_there_is_nothing_to_restore(tmp_path):
    assert restoring.restore_latest(tmp_path / "none", like()) is None
    with Checkpoints(tmp_path / "none") as store:
        assert store.restore(like()) is None


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("name", ["arrays/params.w/0.0", "arrays/_METADATA", "manifest.json"])
@pytest.mark.parametrize("place", [0.0, 0.4, 0.99])
def test_a_flipped_bit_is_never_restored(tmp_path, name, place):
    filled(tmp_path, 1, 2)
    file = tmp_path / "2" / name
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)
    with Checkpoints(tmp_path) as store:
        found = store.restore(like())
    same(found.state, state(1))
    assert "2.damaged" in found.warnings[0]
    assert (tmp_path / "2.damaged").exists()


def test_another_damaged_one_of_a_step_does_not_take_the_first_ones_place(tmp_path):
    for count in (1, 2):
        filled(tmp_path, 1, 2)
        (tmp_path / "2" / "manifest.json").unlink()
        with Checkpoints(tmp_path) as store:
            assert store.restore(like()).step == 1
        assert len(list(tmp_path.glob("2.damaged*"))) == count


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"sha256": "", "manifest": {}}', "[" * 99999])
def test_a_damaged_manifest_is_an_error_in_words(tmp_path, damage):
    filled(tmp_path, 1)
    (tmp_path / "1" / "manifest.json").write_text(damage)
    with pytest.raises(DamagedError, match="manifest"):
        restoring.restore(tmp_path, 1, like())


def test_a_changed_array_is_named(tmp_path):
    filled(tmp_path, 1)
    file = tmp_path / "1" / "arrays" / "params.w" / "0.0"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(DamagedError, match=r"params\.w is damaged"):
        restoring.restore(tmp_path, 1, like())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s._replace(step=np.int8(0)), r"step is uint32 of shape \(\), expected int8"),
        (lambda s: s._replace(step=np.zeros(2, np.uint32)), r"expected uint32 of shape \(2,\)"),
        (lambda s: s._replace(nothing=np.zeros(2)), "nothing is missing"),
        (lambda s: s._replace(step=None), "step is not expected"),
        (lambda s: s._replace(key=jax.random.key(0)), "rbg key.*expected the data of a threefry"),
    ],
)
def test_another_state_is_refused_and_nothing_is_cast_or_set_aside(tmp_path, change, complaint):
    filled(tmp_path, 1)
    with Checkpoints(tmp_path) as store, pytest.raises(MismatchError, match=complaint):
        store.restore(change(state(0)))
    assert restoring.steps(tmp_path) == [1]


def test_another_identity_or_setting_is_refused_by_name(tmp_path):
    filled(tmp_path, 1, identity={"config": {"hidden": 12}, "text": "a"}, setting={"devices": 1})
    with (
        Checkpoints(tmp_path, identity={"config": {"hidden": 13}, "text": "a"}) as store,
        pytest.raises(MismatchError, match=r"config\.hidden: 12 there, 13 here"),
    ):
        store.restore(like())
    ours = {"config": {"hidden": 12}, "text": "a"}
    with (
        Checkpoints(tmp_path, identity=ours, setting={"devices": 2}) as store,
        pytest.raises(MismatchError, match="devices: 1 there, 2 here"),
    ):
        store.restore(like())
    with Checkpoints(tmp_path, identity=ours) as store:  # without a setting any will do
        assert store.restore(like()).step == 1


def test_our_own_version_and_flax_are_among_those_that_count():
    found = manifest.versions()
    assert found["jaxlstm"] == jaxlstm.__version__
    assert found["flax"] == flax.__version__


def test_other_versions_are_refused_where_the_numbers_must_be_the_same(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "versions", lambda: {"jax": "0.0.1"})
        filled(tmp_path, 1, setting={})
    with Checkpoints(tmp_path, setting={}) as store, pytest.raises(MismatchError, match=r"jax: '0"):
        store.restore(like())


def test_another_format_is_refused_by_number(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "FORMAT", 1)
        filled(tmp_path, 1)
    with pytest.raises(MismatchError, match="of format 1, and this version reads 2"):
        restoring.restore(tmp_path, 1, like())


def test_when_all_are_damaged_the_run_does_not_begin_anew(tmp_path):
    filled(tmp_path, 1)
    (tmp_path / "1" / "manifest.json").unlink()
    for _ in range(2):
        with (
            Checkpoints(tmp_path) as store,
            pytest.raises(CheckpointError, match="no sound checkpoint is left"),
        ):
            store.restore(like())


def test_reading_alone_changes_nothing(tmp_path):
    filled(tmp_path, 1, 2)
    largest_file(tmp_path / "2" / "arrays").unlink()
    found = restoring.restore_latest(tmp_path, like())
    same(found.state, state(1))
    assert "left where it is" in found.warnings[0]
    assert restoring.steps(tmp_path) == [1, 2]


def test_params_alone(tmp_path):
    filled(tmp_path, 1, 2)
    found = restoring.restore_part(tmp_path, like().params)
    same(found.state, state(2).params)
    same(restoring.restore_part(tmp_path, like().params, step=1).state, state(1).params)
    largest_file(tmp_path / "2" / "arrays").write_bytes(b"")
    found = restoring.restore_part(tmp_path, like().params)
    assert (found.step, len(found.warnings)) == (1, 1)
    with pytest.raises(MismatchError, match=r"params\.w is float32"):
        restoring.restore_part(tmp_path, {**like().params, "w": np.zeros(3)})
    with pytest.raises(DamagedError, match="no sound checkpoint"):
        restoring.restore_part(tmp_path / "none", like().params)


def test_a_failed_save_is_told_and_the_older_stays(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, keep=1) as store:
        store.save(1, state(1))
        store.wait()

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(arrays, "sync", full)
            store.save(2, state(2))
            store._thread.join()
            with pytest.raises(SaveError, match=r"2 could not be written.*No space left"):
                store.poll()
        store.poll()
        assert restoring.steps(tmp_path) == [1]
        assert not list(tmp_path.glob("*.writing"))
        same(store.restore(like()).state, state(1))


def test_what_was_written_wrong_does_not_take_the_olders_place(tmp_path, monkeypatch):
    write = arrays.write

    def wrong(folder, copies):
        files = write(folder, copies)
        (folder / "params.w" / "0.0").write_bytes(bytes(140))
        return files

    with Checkpoints(tmp_path, keep=1, asynchronous=False) as store:
        store.save(1, state(1))
        monkeypatch.setattr(arrays, "write", wrong)
        with pytest.raises(SaveError, match=r"params\.w is damaged"):
            store.save(2, state(2))
    assert restoring.steps(tmp_path) == [1]


@pytest.mark.parametrize(
    ("save", "complaint"),
    [
        ({"state": {"a": 3}}, "a: expected an array, got int"),
        *[
            (
                {"state": {"a": np.zeros(2, dtype)}},
                "a: expected an array of numbers, got dtype " + at,
            )
            for dtype, at in [
                *[
                    (object, "object"),
                    (">f4", ">f4"),
                    ("<U3", "<U3"),
                    ("M8[s]", "datetime64"),
                    ("V4", ""),
                ],
                *[(np.longdouble, ""), (jnp.uint2, "uint2"), (jnp.float8_e4m3, "float8_e4m3")],
            ]
        ],
        ({"state": Twins()}, "two leaves are called twin"),
        ({"state": {"x" * 250: np.zeros(1)}}, "250 characters"),
        ({"extra": {"a": np.zeros(1)}}, "extra: expected what JSON can hold"),
        ({"step": -1}, "step: expected an integer, 0 or more"),
        ({"step": True}, "step: expected an integer"),
    ],
)
def test_bad_input_is_answered_in_words(tmp_path, save, complaint):
    with Checkpoints(tmp_path) as store, pytest.raises(ValueError, match=complaint):
        store.save(**{"step": 1, "state": {"a": np.zeros(1)}, **save})
    assert restoring.steps(tmp_path) == []


def test_keep_is_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="keep: expected a number of checkpoints, 1 or more"):
        Checkpoints(tmp_path, keep=0)


def test_one_writer_at_a_time(tmp_path):
    with Checkpoints(tmp_path) as store:
        with pytest.raises(LockedError, match="by this process already"):
            Checkpoints(tmp_path)
        code = "import sys; from jaxlstm.train.checkpoints import Checkpoints; "
        other = [sys.executable, "-c", code + "Checkpoints(sys.argv[1])", str(tmp_path)]
        done = subprocess.run(other, capture_output=True, text=True, check=False)
        assert "is being written by another process" in done.stderr
        assert f'"pid": {os.getpid()}' in done.stderr
        store.save(1, state(1))
    with Checkpoints(tmp_path) as store:  # what the file says of its last owner locks nobody out
        assert json.loads((tmp_path / "LOCK").read_text())["pid"] == os.getpid()
        assert store.restore(like()).step == 1
