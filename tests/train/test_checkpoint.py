import json
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jaxlstm.train import checkpoint


class State(NamedTuple):
    params: dict
    step: np.ndarray
    nothing: None = None


def state(seed):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(5, 7)).astype(np.float32), "b": rng.normal(size=3)}
    return State(params, np.asarray(seed, np.uint32))


def like():
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state(0))


def largest_file(folder):
    return max(
        (p for p in (folder / "arrays").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    checkpoint.save(tmp_path, 3, state(3), {"streams": {"epoch": 1}})
    back, extra = checkpoint.restore(tmp_path, 3, like())
    assert jax.tree.structure(back) == jax.tree.structure(state(3))
    jax.tree.map(np.testing.assert_array_equal, back, state(3))
    assert extra == {"streams": {"epoch": 1}}


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, state(step), {}, keep=2)
    assert checkpoint.steps(tmp_path) == [2, 10]


def test_a_checkpoint_that_was_not_finished_is_not_there(tmp_path):
    checkpoint.save(tmp_path, 1, state(1), {})
    (tmp_path / "2.writing").mkdir()
    assert checkpoint.steps(tmp_path) == [1]
    checkpoint.save(tmp_path, 3, state(3), {})
    assert not (tmp_path / "2.writing").exists()


def test_without_any_there_is_nothing_to_restore(tmp_path):
    assert checkpoint.restore_latest(tmp_path / "none", like()) is None


@pytest.mark.parametrize("offset", range(0, 120, 17))
def test_a_flipped_bit_is_never_restored(tmp_path, offset):
    checkpoint.save(tmp_path, 1, state(1), {})
    checkpoint.save(tmp_path, 2, state(2), {})
    file = largest_file(tmp_path / "2")
    raw = bytearray(file.read_bytes())
    raw[-1 - offset % len(raw)] ^= 1 << offset % 8
    file.write_bytes(raw)
    back, _, warnings = checkpoint.restore_latest(tmp_path, like())
    expected = state(1) if warnings else state(2)  # a bit that carries nothing may go unseen
    jax.tree.map(np.testing.assert_array_equal, back, expected)
    assert (tmp_path / "2.damaged").exists() == bool(warnings)


def test_a_changed_array_is_named(tmp_path):
    checkpoint.save(tmp_path, 1, state(1), {})
    path = tmp_path / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["arrays"][".params['w']"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(checkpoint.CheckpointError, match=r"\.params\['w'\] is damaged"):
        checkpoint.restore(tmp_path, 1, like())


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"arrays": {}}'])
def test_a_damaged_manifest_is_an_error_in_words(tmp_path, damage):
    checkpoint.save(tmp_path, 1, state(1), {})
    (tmp_path / "1" / "manifest.json").write_text(damage)
    with pytest.raises(checkpoint.CheckpointError, match="no sound manifest"):
        checkpoint.restore(tmp_path, 1, like())


def test_nothing_is_cast(tmp_path):
    checkpoint.save(tmp_path, 1, state(1), {})
    other = like()._replace(step=jax.ShapeDtypeStruct((), np.int8))
    with pytest.raises(checkpoint.CheckpointError, match=r"\.step is \(\(\), 'uint32'\), expected"):
        checkpoint.restore(tmp_path, 1, other)


def test_a_state_with_other_parts_is_refused(tmp_path):
    checkpoint.save(tmp_path, 1, state(1), {})
    with pytest.raises(checkpoint.CheckpointError, match=r"\.nothing is missing"):
        checkpoint.restore(tmp_path, 1, like()._replace(nothing=np.zeros(2)))


def test_when_all_are_damaged_the_run_does_not_begin_anew(tmp_path):
    checkpoint.save(tmp_path, 1, state(1), {})
    (tmp_path / "1" / "manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(checkpoint.CheckpointError, match="no sound checkpoint is left"):
            checkpoint.restore_latest(tmp_path, like())
