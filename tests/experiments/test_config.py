import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.language_model import config, corpus, state


def test_every_field_can_be_given_and_is_explained(capsys):
    with pytest.raises(SystemExit):
        config.parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(config.Config):
        assert f"--{field.name.replace('_', '-')}" in shown
        assert " ".join(field.metadata["help"].split())[:30] in shown


def test_a_preset_is_where_overrides_begin():
    given, folder = config.parse(["--preset", "zaremba-small", "--hidden", "64"])
    assert given == dataclasses.replace(config.PRESETS["zaremba-small"], hidden=64)
    assert folder == "runs/zaremba-small-stdlib"


@pytest.mark.parametrize("preset", config.PRESETS)
def test_presets_are_sensible(preset):
    config.check(config.PRESETS[preset])


def test_zarembas_rate_halves_after_the_fourth_epoch():
    preset = config.PRESETS["zaremba-small"]
    rates = [state.rate(preset, 130, 10)(step) for step in (0, 39, 40, 49, 50, 129)]
    assert [float(r) for r in rates] == [1, 1, 0.5, 0.5, 0.25, 0.5**9]


def test_the_linear_schedule_ends_at_zero():
    preset = config.PRESETS["char"]
    rate = state.rate(preset, 1000, 10)
    assert float(rate(0)) == 0
    assert float(rate(preset.warmup)) == pytest.approx(preset.learning_rate)
    assert float(rate(1000)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "epochs"])
def test_the_rate_of_accumulated_windows_is_that_of_their_first(schedule):
    settings = config.Config(
        optimizer="sgd", schedule=schedule, learning_rate=0.5, warmup=4, accumulate=4, steps=40,
        flat_epochs=1,
    )  # fmt: skip
    rule, params = state.optimizer(settings, 40, 10), {"w": jnp.zeros(())}
    after, made, update = rule.init(params), [], jax.jit(rule.update)
    for _ in range(40):
        updates, after = update({"w": jnp.ones(())}, after)
        made += [-float(updates["w"])] if updates["w"] else []
    rates = [float(state.rate(settings, 40, 10)(step)) for step in range(0, 40, 4)]
    np.testing.assert_allclose(made, [r for r in rates if r], rtol=1e-6)
    assert made[-1] <= 0.13 * settings.learning_rate


@pytest.mark.parametrize("alone", ["--process=1", "--processes=2", "--coordinator=here:1234"])
def test_who_is_who_is_told_in_whole_or_not_at_all(alone):
    with pytest.raises(ValueError, match="--coordinator, --processes and --process: expected all"):
        config.parse([alone])


def test_quick_is_small_but_for_what_is_given():
    given, folder = config.parse(["--quick", "--hidden=64", "--preset=zaremba-small"])
    assert (given.hidden, given.steps, given.level) == (64, config.QUICK["steps"], "word")
    assert folder == "runs/zaremba-small-stdlib-quick"


def test_the_standard_library_is_split_by_files_and_the_same_each_time():
    texts = corpus.standard_library()
    assert texts == corpus.standard_library()
    assert len(texts.train) > 10 * len(texts.test) > 0
    assert texts.test not in texts.train


def test_tiny_shakespeare_can_be_placed_by_hand_and_is_verified(tmp_path):
    (tmp_path / "tinyshakespeare.txt").write_text("not Shakespeare")
    settings = config.Config(corpus="tinyshakespeare", cache=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"place it by hand as .*tinyshakespeare.txt \(sha256:86c4"
    ):
        corpus.load(settings)
