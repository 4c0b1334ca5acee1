"""The options of training, without the command around it."""

import dataclasses
import shutil
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.language_model import corpus, model, pretrained, train, workdir
from experiments.language_model.config import Config
from experiments.language_model.state import plateau
from jaxlstm.data.text import Streams
from jaxlstm.train import manifest, restoring
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.interruption import StopRequestedError
from jaxlstm.train.manifest import MismatchError
from jaxlstm.train.metrics import Metrics

TEXT = "".join(f"def f{n % 7}(x):\n    return x + {n % 11}\n" for n in range(300))
SMALL = Config(
    hidden=12, embedding=6, batch=4, window=16, steps=40, log_every=5, watch_every=10,
    watch_symbols=200, checkpoint_seconds=1000, warmup=0, learning_rate=1e-2, devices=1,
)  # fmt: skip


class Stop:
    """Asks to stop after some looks at it."""

    def __init__(self, looks=10**9):
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        return self.looks < 0

    def check(self):
        if self.requested:
            raise StopRequestedError(signal.SIGTERM.name)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.py"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(text, folder, looks=10**9, **fields):
    """Trains; the end, and the lines of the metrics but for their times."""
    config = dataclasses.replace(SMALL, train=str(text), **fields)
    begin = pretrained.load(config, folder) if config.begin_with else None
    data = corpus.load(config, begin and begin.vocabulary)
    streams = Streams(data.train, config.batch, config.window)
    identity = workdir.identity(config, data, begin.fingerprint if begin else "")
    folder.mkdir(exist_ok=True)
    setting = None if config.elsewhere else {"devices": config.devices}
    with Checkpoints(folder / "checkpoints", identity=identity, setting=setting) as store:
        workdir.claim(folder, identity, config, data.vocabulary)
        metrics = Metrics(folder / "metrics.jsonl")
        learned = begin and begin.params
        done = train.train(config, data, streams, metrics, store, Stop(looks), learned)
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in metrics.lines()]
    return types.SimpleNamespace(params=done.params, step=done.step, lines=lines, config=config)


@pytest.fixture(scope="module")
def plain(text, tmp_path_factory):
    """A whole run of one device, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    return run(text, folder), folder


def kept(folder, step):
    """Of a checkpoint, the SHA-256 of each array, its score and all scores so far."""
    listed = manifest.read(folder / "checkpoints" / str(step) / "manifest.json")
    return listed["arrays"], listed["score"], listed["extra"]["scores"]


OPTIONS = {
    "plain": {},
    "float16": {"precision": "float16"},
    "bfloat16": {"precision": "bfloat16"},
    "accumulated": {"accumulate": 2, "log_every": 3},
    "plateau": {"schedule": "plateau", "plateau": 1, "learning_rate": 1.0},
    "ntasgd": {"optimizer": "ntasgd", "schedule": "constant", "learning_rate": 30.0,
               "nonmonotone": 1, "watch_every": 4},
    "two devices": {"devices": 2},
}  # fmt: skip


@pytest.mark.long  # the plain one is killed in test_language_model.py
@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(text, tmp_path, name, capsys):
    whole = run(text, tmp_path / "whole", **OPTIONS[name])
    assert whole.lines[-1]["train_nats"] < whole.lines[0]["train_nats"] or name == "plateau"
    for looks in (10, 13, 16, 4):  # amid two evaluations, the last one among them, and between
        with pytest.raises(StopRequestedError):
            run(text, tmp_path / "again", looks, **OPTIONS[name])
    again = run(text, tmp_path / "again", **OPTIONS[name])
    assert again.lines == whole.lines
    folders = tmp_path / "again", tmp_path / "whole"
    best = [restoring.best(folder / "checkpoints") for folder in folders]
    assert best[0] == best[1]
    for step in (best[0], 40):
        assert kept(folders[0], step) == kept(folders[1], step)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)


def test_other_devices_are_refused_unless_asked_for(text, plain, tmp_path):
    with pytest.raises(StopRequestedError):
        run(text, tmp_path / "run", looks=12, devices=2)
    with pytest.raises(MismatchError, match="devices: 2 there, 1 here"):
        run(text, tmp_path / "run", devices=1)
    done = run(text, tmp_path / "run", devices=1, elsewhere=True)
    assert done.step == 40
    alone = plain[0].lines[-1]["train_nats"]
    assert done.lines[-1]["train_nats"] == pytest.approx(alone, abs=0.1)


def test_another_number_of_processes_is_refused_unless_asked_for(text, tmp_path, monkeypatch):
    with monkeypatch.context() as two:
        states = Streams.get_state
        of_two = lambda s: {"identity": {**states(s)["identity"], "shards": 2}}
        two.setattr(Streams, "get_state", lambda s: states(s) | of_two(s))
        with pytest.raises(StopRequestedError):
            run(text, tmp_path / "run", looks=3, steps=6)
    with pytest.raises(ValueError, match="shards: 2 there, 1 here"):
        run(text, tmp_path / "run", steps=6)
    assert run(text, tmp_path / "run", steps=6, elsewhere=True).step == 6


def test_devices_that_do_not_divide_the_batch_are_refused_if_asked_for():
    odd = dataclasses.replace(SMALL, batch=3)
    with pytest.raises(ValueError, match=r"--batch: expected a multiple of 2, .* got 3"):
        train.use_devices(dataclasses.replace(odd, devices=2))
    assert len(train.use_devices(dataclasses.replace(odd, devices=0))) == 1


def test_a_rollback_is_scored_for_what_it_went_back_to(tmp_path, monkeypatch):
    poisoned, length = list(TEXT), len(TEXT) * 18 // 20 // SMALL.batch
    poisoned[length + 15 * SMALL.window + 3] = "\0"  # in the second stream, amid step 15
    path = tmp_path / "text.py"
    path.write_text("".join(poisoned), encoding="utf-8")
    number = list(corpus.load(Config(train=str(path))).vocabulary.symbols).index("\0")
    losses = model.losses

    def spoiled(config, params, carry, tokens, targets, key):
        carry, nats, smooth = losses(config, params, carry, tokens, targets, key)
        return carry, jnp.where((tokens == number).any(), jnp.nan, nats), smooth

    monkeypatch.setattr(model, "losses", spoiled)
    options = {"steps": 20, "log_every": 10, "on_nonfinite": "rollback", "schedule": "plateau"}
    whole = run(path, tmp_path / "whole", **options)
    (event,) = [line for line in whole.lines if "event" in line]
    assert (event["step"], event["event"], event["to"]) == (20, "rollback", 10)
    first, second = kept(tmp_path / "whole", 10), kept(tmp_path / "whole", 20)
    params = [{n: a for n, a in arrays.items() if "params" in n} for arrays, *_ in (first, second)]
    assert params[0] == params[1]
    assert first[1] == second[1] == whole.lines[-2]["valid_nats"]
    with pytest.raises(StopRequestedError):  # amid the evaluation after the rollback
        run(path, tmp_path / "again", looks=21, **options)
    again = run(path, tmp_path / "again", **options)
    assert again.lines == whole.lines
    assert kept(tmp_path / "again", 20) == second


def test_the_rate_decays_at_a_plateau(text, tmp_path):
    done = run(text, tmp_path / "run", **OPTIONS["plateau"], decay=0.25)
    scores = [x["valid_nats"] for x in done.lines if "valid_nats" in x]
    like = jax.eval_shape(lambda: plateau(done.config).init({}))
    state = restoring.restore_part(tmp_path / "run" / "checkpoints", like, "plateau").state
    worse = sum(b >= min(scores[:n]) for n, b in enumerate(scores) if n)
    assert worse > 0
    assert state.scale == 0.25**worse


def test_training_ends_when_valid_gets_no_better(text, tmp_path):
    done = run(text, tmp_path / "run", watch_every=2, patience=2, learning_rate=3.0)
    scores = [x["valid_nats"] for x in done.lines if "valid_nats" in x]
    assert done.step < 40
    assert min(scores) == min(scores[:-2]) < min(scores[-2:])
    again = run(text, tmp_path / "run", watch_every=2, patience=2, learning_rate=3.0)
    assert (again.step, again.lines) == (done.step, done.lines)


def test_a_run_begins_with_what_another_learned(plain, tmp_path):
    first = plain[0]
    shutil.copytree(plain[1], tmp_path / "first")
    other = tmp_path / "other.py"
    other.write_text(TEXT.replace("return", "yield") * 2, encoding="utf-8")
    begin = {"begin_with": str(tmp_path / "first"), "learning_rate": 1e-9}
    second = run(other, tmp_path / "second", **begin)
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert second.lines[0]["train_nats"] < first.lines[0]["train_nats"]
    fourth = {**begin, "begin_with": str(tmp_path / "gone")}
    shutil.copytree(tmp_path / "first", tmp_path / "gone")
    with pytest.raises(StopRequestedError):
        run(other, tmp_path / "fourth", looks=12, **fourth)
    shutil.rmtree(tmp_path / "gone")
    jax.tree.map(
        np.testing.assert_array_equal, run(other, tmp_path / "fourth", **fourth).params,
        second.params,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"params\.layers\.0\.w_x is float64 of shape"):
        run(other, tmp_path / "third", begin_with=str(tmp_path / "first"), hidden=13)
    with pytest.raises(ValueError, match="of level char, not of word"):
        run(other, tmp_path / "third", begin_with=str(tmp_path / "first"), level="word")
    with pytest.raises(ValueError, match=r"--begin-with: .*none holds no run"):
        run(other, tmp_path / "third", begin_with=str(tmp_path / "none"))
    shutil.rmtree(tmp_path / "second" / "checkpoints")
    best = restoring.best(tmp_path / "first" / "checkpoints")
    shutil.rmtree(tmp_path / "first" / "checkpoints" / str(best))
    with pytest.raises(ValueError, match=r"first has changed since .*second began with it, and"):
        run(other, tmp_path / "second", **begin)
