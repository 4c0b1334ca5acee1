import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.language_model import corpus, finish, model, sample, train
from experiments.language_model.__main__ import main
from experiments.language_model.config import Config
from jaxlstm.data.text import Vocabulary
from jaxlstm.train import manifest
from jaxlstm.train.metrics import Metrics

pytestmark = pytest.mark.xdist_group("language_model")  # one finished run for all
TEXT = "".join(f"def f{n % 7}(x):\n    return x + {n % 11}  # é\n" for n in range(400))


def run(*arguments):
    command = [sys.executable, "-m", "experiments.language_model", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.py"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    done = run("--train", text, "--workdir", folder, "--quick")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_run_ends_with_its_numbers_beside_the_floor(finished):
    folder, shown = finished
    result = json.loads((folder / "metrics.json").read_text())
    assert result["steps"] == 60
    assert result["seconds"] > 0
    assert result["tokens_per_second"] > 0
    for part in ("test", "valid", "floor"):
        nats, bits = result[part]["nats"], result[part]["bits_per_character"]
        assert bits == pytest.approx(nats / np.log(2))
    assert 0 < result["test"]["nats"] < np.log(40)
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert len((folder / "sample.txt").read_text(encoding="utf-8")) == 20
    assert "Witten-Bell" in shown
    assert "first 90 % train" in shown
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == list(range(5, 61, 5))
    assert [x["step"] for x in lines if "valid_nats" in x] == [20, 40, 60]
    assert lines[-1]["train_nats"] < lines[0]["train_nats"]


def arrays(folder):
    (newest,) = [p for p in (folder / "checkpoints").iterdir() if p.name == "60"]
    return manifest.read(newest / "manifest.json")["arrays"]


def without_times(folder):
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "metrics.json").read_text())
    timed = ("seconds", "tokens_per_second")
    return [{k: v for k, v in x.items() if k not in timed} for x in [*lines, result]]


# A shell's background job ignores SIGINT, and so do its children unless they are told not to.
INTERRUPTIBLE = """import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("experiments.language_model", run_name="__main__", alter_sys=True)
"""


OTHERS = [([signal.SIGTERM], 75), ([signal.SIGINT], 75), ([signal.SIGTERM] * 2, 143)]


@pytest.mark.parametrize(
    ("kills", "code"),
    [
        ([signal.SIGKILL], -signal.SIGKILL),
        *(pytest.param(*other, marks=pytest.mark.long) for other in OTHERS),  # as test_training.py
    ],
)
def test_a_killed_run_goes_on_to_the_very_same_end(finished, text, tmp_path, kills, code):
    whole, _ = finished
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", INTERRUPTIBLE, "--train", str(text)]
    command += ["--workdir", str(folder), "--quick", "--checkpoint-seconds=0"]
    with open(os.devnull, "w") as nothing:
        process = subprocess.Popen(command, stdout=nothing, stderr=nothing)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        lines = folder / "metrics.jsonl"
        if lines.exists() and lines.read_text().count("\n") >= 4:
            break
        time.sleep(0.01)
    for kill in kills:
        process.send_signal(kill)
        time.sleep(0.001)
    # Two signals in one moment may be taken as one, and the first may have been enough.
    assert process.wait(60) in {code, 75 if len(kills) > 1 else code}
    again = run("--train", text, "--workdir", folder, "--quick")
    assert again.returncode == 0, again.stderr
    assert "going on after step" in again.stdout
    assert arrays(folder) == arrays(whole)  # shapes, dtypes and SHA-256 of every array
    assert without_times(folder) == without_times(whole)


def test_a_folder_of_another_configuration_is_refused(finished, text):
    folder, _ = finished
    done = run("--train", text, "--workdir", folder, "--quick", "--hidden=13", "--seed=4")
    assert done.returncode == 1
    assert "belongs to another configuration" in done.stderr
    assert "hidden: 32 there, 13 here" in done.stderr
    assert "seed: 0 there, 4 here" in done.stderr
    assert "Traceback" not in done.stderr


def test_samples_follow_the_prompt_and_the_seed(finished, capsys):
    folder, _ = finished
    ask = ["sample", "--workdir", str(folder), "--prompt", "def ", "--length", "30", "--seed"]

    def shown(seed):
        with jax.enable_x64(False):
            main([*ask, seed])
        return capsys.readouterr().out

    first = shown("3")
    assert first == shown("3") != shown("4")
    assert first.startswith("def ")
    assert len(first) == 4 + 30 + 1


def test_draws_keep_to_the_likeliest_and_to_the_nucleus():
    scores = jnp.log(jnp.array([0.05, 0.5, 0.15, 0.3]))
    keys = jax.random.split(jax.random.key(0), 400)

    def drawn(temperature=1.0, top_k=4, top_p=1.0):
        draws = jax.vmap(lambda key: sample.draw(key, scores, temperature, top_k, top_p))(keys)
        return np.bincount(draws, minlength=4) / len(keys)

    np.testing.assert_allclose(drawn(), [0.05, 0.5, 0.15, 0.3], atol=0.1)
    np.testing.assert_array_equal(drawn(temperature=0.0), [0, 1, 0, 0])
    np.testing.assert_array_equal(drawn(top_k=1), [0, 1, 0, 0])
    np.testing.assert_allclose(drawn(top_k=2), [0, 0.625, 0, 0.375], atol=0.1)
    np.testing.assert_allclose(drawn(top_p=0.79), [0, 0.625, 0, 0.375], atol=0.1)
    np.testing.assert_allclose(drawn(top_p=0.81), [0, 0.526, 0.158, 0.316], atol=0.1)


def test_words_and_peepholes_and_two_devices(text, tmp_path):
    done = run(
        "--train", text, "--workdir", tmp_path / "w", "--quick", "--level=word", "--cell=peephole",
        "--layers=2", "--optimizer=sgd", "--schedule=epochs", "--learning-rate=0.5",
        "--devices=2", "--window=5", "--weight-drop=0.2", "--steps=10",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 streams on each" in done.stdout
    result = json.loads((tmp_path / "w" / "metrics.json").read_text())
    assert result["test"]["perplexity"] == pytest.approx(np.exp(result["test"]["nats"]))


@pytest.mark.parametrize(
    ("content", "arguments", "complaint"),
    [
        (b"", [], "is empty"),
        (None, [], "can't read"),
        (b"abc \xff\xfe abc", [], "is not UTF-8: byte 4 is 0xff"),
        (b"a few words " * 20, ["--batch=64"], "too short for 64 streams"),
        (b"x" * 5000, ["--level=char", "--dropout=1.5"], "--dropout: expected a number in [0, 1)"),
        (
            b"x" * 5000,
            ["--devices=3", "--batch=4", "--cell=gru", "--steps=0", "--epochs=0"],
            "--epochs",
        ),
        (b"x" * 5000, ["--valid=y.txt"], "both or neither"),
    ],
)
def test_bad_input_is_answered_in_words(tmp_path, content, arguments, complaint):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(complaint)):
        main(["--train", str(path), "--workdir", str(tmp_path / "run"), *arguments])
    assert not (tmp_path / "run").exists()


def test_unseen_characters_count_as_unknown_to_what_another_run_has_learned(
    finished, text, tmp_path
):
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("def π(x):\n" * 10, encoding="utf-8")
    done = run(
        "--train", text, "--valid", held_out, "--test", held_out,
        "--workdir", tmp_path / "run", "--quick", "--steps=5", "--begin-with", finished[0],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test: 10 characters (10.00%) count as <unk>" in done.stdout


@pytest.mark.parametrize("library", ["matplotlib", "tqdm"])
def test_a_library_that_is_missing_is_named_before_anything_begins(
    text, tmp_path, monkeypatch, library
):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "experiments.language_model.__main__")
    monkeypatch.setattr(
        sys, "argv", ["", "--quick", f"--train={text}", f"--workdir={tmp_path / 'run'}"]
    )
    with pytest.raises(SystemExit) as end:
        runpy.run_module("experiments.language_model", run_name="__main__", alter_sys=True)
    assert str(end.value).startswith(f"error: {library} can't be imported")
    assert "pip install 'jaxlstm[experiments]'" in str(end.value)
    assert not (tmp_path / "run").exists()


def test_the_numbers_are_there_whatever_becomes_of_the_picture(tmp_path, monkeypatch):
    tokens = np.arange(60, dtype=np.int32) % 3
    data = corpus.Data(tokens, tokens, tokens, Vocabulary(("<unk>", "a", "b")), "", [])
    settings = Config(hidden=2, embedding=2, sample_length=1)
    params = model.init(settings, jax.random.key(0), 3)

    def no_picture(*arguments):
        raise OSError("no room for it")

    monkeypatch.setattr(finish, "learning_curve", no_picture)
    trained = train.Trained(params, 0, 0.0)
    with pytest.raises(OSError, match="no room"):
        finish.finish(
            settings, data, tmp_path, trained, Metrics(tmp_path / "m.jsonl"), lambda: None
        )
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == 0
    assert (tmp_path / "sample.txt").exists()


def test_a_sample_from_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        main(["sample", "--workdir", str(tmp_path)])
