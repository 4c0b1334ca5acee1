"""The long-lag experiments' command line, what it keeps of runs, and the page."""

import subprocess

import jax
import numpy as np
import pytest

from experiments.long_lags import __main__ as command
from experiments.long_lags import results


def test_counted_says_how_many_succeeded_and_when():
    assert results.counted(np.array([10, -1, 20])) == "2 of 3 seeds, 15 ± 5 sequences"
    assert results.counted(np.array([-1, -1])) == "0 of 2 seeds"


@pytest.mark.parametrize("task", ["reber", "order-6a"])
def test_a_quick_run_prints_its_result_beside_the_paper_s_and_the_floor(task, capsys, tmp_path):
    arguments = [task, "--form", "1997", "--quick", "--seeds", "2"]
    assert command.main([*arguments, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "0 of 2 seeds" in said
    assert "paper: " in said
    assert "floor: " in said
    assert not list(tmp_path.iterdir())


def test_the_page_has_a_row_for_each_run_with_what_was_asked_and_found(tmp_path):
    docs = results.PAGE.read_bytes()
    found = results.Found(
        title="a task",
        source="table 1",
        paper="5 sequences",
        accept="at most 10",
        ours="12 ± 1",
        floor="chance: 50 %",
        passed=False,
        seeds=3,
        numbers={"solved": [11, 13]},
    )
    for task, passed, seconds in [
        ("order-6a", False, (60.2, 1000.0)),
        ("adding-100", True, (2600.0, 2600.0)),
    ]:
        record = results.record(
            task, "1997", found._replace(passed=passed), seconds, "run it", "1a2b3c4"
        )
        results.save(record, tmp_path)
    assert command.main(["page", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "long_lags.md").read_text()
    assert results.PAGE.read_bytes() == docs
    assert f"JAX {jax.__version__}." in text
    *_, first, second = text.splitlines()
    assert first.startswith(
        "| a task | 1997 | table 1 | 5 sequences | at most 10 | 12 ± 1; seeds: 3 | reached |"
    )
    assert "| **not reached** | chance: 50 % | 60, 1,000 | `run it`, " in second
    assert "| **2,600**, 2,600 |" in first
    assert "All\n2 rows took 1.0 hours of CPU" in text


def test_the_page_in_docs_is_what_the_kept_results_give():
    order = [(task, form) for task, (_, forms) in command.TASKS.items() for form in forms]
    kept = results.read(results.FOLDER, order)
    assert results.PAGE.read_text("utf-8") == results.page(kept)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["adding-100", "--seeds", "-3"], "expected a number from 1, got -3"),
        (["adding-100", "--budget", "0"], "expected a number from 1, got 0"),
        (["adding-100", "--budget", "1e5"], "expected a number from 1, got 1e5"),
        (["adding-100", "--data", "there"], "--data: adding-100 reads none; those that do are"),
        (["adding-100", "--form", "gru"], "--form: adding-100 has 1997, modern, got gru"),
        (["adding-100", "--keep", "there"], "--keep: adding-100 can't be kept; those that can are"),
        (["smnist", "--keep", "there", "--quick"], "--keep: of a --quick try nothing is kept"),
    ],
)
def test_what_the_command_line_refuses(words, said, capsys):
    with pytest.raises(SystemExit):
        command.main(words)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "least"),
    [("continual-reber", "10,000"), ("gts", "20,000"), ("reber", "1,000"), ("lag-2a", "10,000")],
)
def test_a_budget_by_which_nothing_can_succeed_is_refused(task, least, tmp_path):
    with pytest.raises(ValueError, match=rf"--budget: expected at least {least} \w+, got 100"):
        command.main([task, "--budget", "100", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["adding-100", "--form", "modern", "--seeds", "2"], "adding-100 --form modern`"),
        (["copy-1000", "--form", "lstm"], "copy-1000 --form lstm --seeds 3`"),
        (["smnist", "--form", "lstm", "--data", "x"], "--budget 9000 --data FOLDER`"),
    ],
)
def test_a_run_of_other_seeds_does_not_write_over_a_kept_result(given, kept, capsys):
    with pytest.raises(SystemExit):
        command.main(given)
    said = capsys.readouterr().err
    assert "--out: there is a result of `python -m experiments.long_lags " in said
    assert kept in said


@pytest.mark.parametrize("data", [[], ["--data", "elsewhere"]])
def test_what_is_kept_can_be_run_again_with_data_from_anywhere(data, monkeypatch):
    run = lambda *given: (_ for _ in ()).throw(ValueError(f"ran with {given[2].data!r}"))
    monkeypatch.setitem(command.TASKS, "smnist", (run, ("elman",)))
    again = ["smnist", "--form", "elman", "--budget", "9000", *data]
    with pytest.raises(ValueError, match=f"ran with '{''.join(data[1:])}'"):
        command.main(again)


def test_what_is_kept_of_a_budget_can_be_run_again(monkeypatch):
    again = results.command_of("lag-2a", "1997").split()[3:]
    assert "--budget" in again
    run = lambda *given: (_ for _ in ()).throw(ValueError(f"ran {given[2].budget}"))
    monkeypatch.setitem(command.TASKS, "lag-2a", (run, ("1997",)))
    with pytest.raises(ValueError, match="ran 40000"):
        command.main(again)


def test_the_commit_is_another_with_each_change_but_to_results(tmp_path):
    folder = tmp_path / "experiments" / "long_lags"
    kept, code = folder / "results" / "a.json", folder / "a.py"
    kept.parent.mkdir(parents=True)
    for path in (kept, code):
        path.write_text("1")
    assert results.commit(folder) == ""
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *words], check=True)
    clean = results.commit(folder)
    assert clean
    assert "+" not in clean
    kept.write_text("2")
    assert results.commit(folder) == clean
    seen = []
    for text in ("2", "3"):
        code.write_text(text)
        seen.append(results.commit(folder))
    assert seen[0] != seen[1]
    assert all(one.startswith(f"{clean}+") for one in seen)
