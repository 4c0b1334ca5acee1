"""The adding problem and copy memory of Bai, Kolter and Koltun: tasks, sizes, floors, a run."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from experiments.long_lags import __main__ as command
from experiments.long_lags import keeping, stress

KEY = jax.random.key(0)


def test_sums_of_two_marked_numbers_anywhere():
    batch = jax.jit(lambda key: stress.marked_sums(key, 9))(KEY)
    places = set()
    for n, (values, marks) in enumerate(np.asarray(batch.xs).transpose(1, 2, 0)):
        assert ((values >= 0) & (values < 1)).all()
        (marked,) = np.nonzero(marks)
        assert len(marked) == 2
        assert (marks[marked] == 1).all()
        np.testing.assert_allclose(batch.targets[n], values[marked].sum(), rtol=1e-12)
        places.update(marked)
    assert places == set(range(9))


def test_what_is_to_be_copied_comes_first_and_is_said_last():
    batch = jax.jit(lambda key: stress.copies(key, 30))(KEY)
    xs = np.asarray(batch.xs).argmax(-1)
    np.testing.assert_array_equal(np.asarray(batch.xs).sum(-1), 1)
    assert xs.shape == (50, stress.BATCH)
    assert set(np.unique(xs[:10])) == set(range(1, 9))
    assert (xs[10:39] == 0).all()
    assert (xs[39:] == 9).all()
    np.testing.assert_array_equal(batch.targets[-10:], xs[:10])
    assert (batch.targets[:-10] == 0).all()


def test_losses_of_the_floors():
    batch = jax.jit(lambda key: stress.copies(key, 30))(KEY)
    guess = np.full((50, stress.BATCH, 10), -1e9)
    guess[:-10, :, 0] = 0
    guess[-10:, :, 1:9] = 3.0
    found = stress.cross_entropy(jnp.array(guess), batch.targets)
    np.testing.assert_allclose(found, stress.of_guessing(30), rtol=1e-6)
    np.testing.assert_allclose(stress.of_guessing(1000), 0.0204, atol=5e-5)  # as in table 1
    draw = jax.jit(jax.vmap(lambda key: stress.marked_sums(key, 9)))
    batches = draw(jax.random.split(KEY, 40))
    ones = np.ones((9, 40 * stress.BATCH, 1))
    found = stress.squared_error(ones, batches.targets.reshape(-1))
    np.testing.assert_allclose(found, 1 / 6, rtol=0.1)
    assert stress.floor("adding-600", [batches]) == f"1, always: {found:.5f}"


@pytest.mark.parametrize("form", stress.FORMS)
@pytest.mark.parametrize(("name", "size"), [("adding-600", 70_000), ("copy-1000", 16_000)])
def test_networks_have_the_paper_s_sizes(name, form, size):
    task = stress.TASKS[name]
    units = task.units[form]
    cell = getattr(jl, form)(units)
    params = jax.eval_shape(lambda key: stress.init(key, cell, task, units), KEY)
    assert sum(a.size for a in jax.tree.leaves(params)) == pytest.approx(size, rel=0.02)


def test_a_quick_run_of_a_short_copy_task_says_what_it_found(monkeypatch, capsys):
    short = functools.partial(stress.copies, blanks=5)
    task = stress.TASKS["copy-1000"]._replace(draw=short, units={"lstm": 4})
    monkeypatch.setitem(stress.TASKS, "copy-1000", task)
    assert command.main(["copy-1000", "--form", "lstm", "--quick", "--seeds", "2"]) == 0
    said = capsys.readouterr().out
    assert " after 5 updates" in said
    assert "paper: loss 0.0204" in said
    assert "10 ln 8 / 1020: 0.02039" in said


def test_a_run_that_is_killed_goes_on_and_ends_as_one_that_was_not(tmp_path, monkeypatch, capsys):
    short = functools.partial(stress.copies, blanks=5)
    task = stress.TASKS["copy-1000"]._replace(draw=short, units={"lstm": 4})
    monkeypatch.setitem(stress.TASKS, "copy-1000", task)
    monkeypatch.setattr(stress, "EVERY", 2)
    kept, words = str(tmp_path / "kept"), ["copy-1000", "--form", "lstm", "--seeds", "2"]
    run = lambda out, *more: command.main([*words, "--out", str(tmp_path / out), *more])
    found = lambda out: json.loads((tmp_path / out / "copy-1000.lstm.json").read_text("utf-8"))
    assert run("whole", "--budget", "6") == 0

    save = keeping.Keeping.save

    def killed(self, step, ended, state):
        save(self, step, ended, state)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(keeping.Keeping, "save", killed)
    clock = itertools.count(0, 1000)
    monkeypatch.setattr(keeping, "_now", lambda: (next(clock), 0.0))
    with pytest.raises(KeyboardInterrupt):
        run("kept", "--budget", "6", "--keep", kept)
    monkeypatch.setattr(keeping.Keeping, "save", save)
    with pytest.raises(ValueError, match="updates"):
        run("kept", "--budget", "8", "--keep", kept)
    capsys.readouterr()
    assert run("kept", "--budget", "6", "--keep", kept) == 0
    assert capsys.readouterr().out.startswith("goes on after 4 updates, of 2,000 s")
    assert found("kept")["seconds"] >= 2000 > found("whole")["seconds"]
    assert found("kept")["numbers"] == found("whole")["numbers"]
    assert run("kept", "--budget", "6", "--keep", kept) == 0  # ended, it is only examined again
    assert "goes on after 6 updates" in capsys.readouterr().out
    assert found("kept")["numbers"] == found("whole")["numbers"]
