import dataclasses

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
