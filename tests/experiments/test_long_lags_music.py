"""Polyphonic music and digits by pixels: the data, the scores, and runs on made-up data."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.io import savemat
from scipy.stats import bernoulli

import jaxlstm as jl
from experiments.long_lags import __main__ as command
from experiments.long_lags import music, piano_rolls, pixels, results

LENGTHS = (5, 2, 9)


def rolls_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.random((n, piano_rolls.NOTES)) < 0.3).astype(np.uint8) for n in lengths]


def in_file(folder, name="jsb", **changed):
    parts = {
        f"{part}data": rolls_of(LENGTHS, n) for n, part in enumerate(piano_rolls.Music._fields)
    }
    cells = lambda rolls: np.array([*rolls, None], object)[None, :-1]
    savemat(
        folder / piano_rolls.FILES[name][0], {k: cells(v) for k, v in (parts | changed).items()}
    )
    return str(folder)


def test_rolls_come_back_from_a_file(tmp_path):
    found = piano_rolls.load("jsb", in_file(tmp_path))
    for n, part in enumerate(found):
        for roll, expected in zip(part, rolls_of(LENGTHS, n), strict=True):
            np.testing.assert_array_equal(roll, expected)


def test_what_is_no_piano_roll_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--data: there is no JSB_Chorales\.mat in "):
        piano_rolls.load("jsb", str(tmp_path))
    in_file(tmp_path, testdata=[np.ones((4, 87), np.uint8)])
    with pytest.raises(ValueError, match=r"expected rolls \(T, 88\) of 0 and 1, got \(4, 87\)"):
        piano_rolls.load("jsb", str(tmp_path))
    (tmp_path / "JSB_Chorales.mat").write_text("not music")
    with pytest.raises(ValueError, match="is no MATLAB file of piano rolls"):
        piano_rolls.load("jsb", str(tmp_path))


def test_pieces_predict_each_frame_but_the_first_once():
    rolls = rolls_of((9, 4, 2))
    found = piano_rolls.padded(rolls, 4)
    assert found.lengths.tolist() == [4, 4, 3, 4, 2]
    targets = np.concatenate([r[1:n] for r, n in zip(*found, strict=True)])
    np.testing.assert_array_equal(targets, np.concatenate([r[1:] for r in rolls]))
    np.testing.assert_array_equal(found.rolls[1, 0], rolls[0][3])
    assert not found.rolls[4, 2:].any()


def test_the_floors_are_those_of_counting():
    found = piano_rolls.Music(rolls_of((40,)), rolls_of((5,)), rolls_of((20, 30), 1))
    p = {"marginal": [], "markov": []}
    ((train),) = found.train
    for roll in found.test:
        for before, after in pairwise(roll):
            for note in range(piano_rolls.NOTES):
                of = train[:, note]
                same = of[1:][of[:-1] == before[note]]
                for name, seen in (("marginal", of[1:]), ("markov", same)):
                    share = (seen.sum() + 1) / (len(seen) + 2)
                    p[name].append(bernoulli.logpmf(after[note], share))
    for name, score in piano_rolls.floors(found).items():
        np.testing.assert_allclose(score, -np.sum(p[name]) / 48, rtol=1e-12)


def test_a_batch_s_score_is_that_of_its_sequences_whatever_the_padding():
    rolls = rolls_of(LENGTHS)
    batch = piano_rolls.padded(rolls)
    draw = lambda *shape: np.random.default_rng(1).normal(0, 0.3, shape)
    w_x, w_h, b, w = draw(88, 100), draw(100, 100), draw(100), draw(100, 88)
    total = 0.0
    for roll in rolls:
        h = np.zeros(100)
        for before, after in pairwise(roll):
            h = np.tanh(before @ w_x + h @ w_h + b)
            total -= bernoulli.logpmf(after, 1 / (1 + np.exp(-(h @ w + w[0])))).sum()
    batch.rolls[1, 2:] = 1
    params = jl.ElmanParams(*map(jnp.asarray, (w_x, w_h, b))), w, w[0]
    found = music.nats(music.NETS["elman"], params, batch)
    np.testing.assert_allclose(found, total / 13, rtol=1e-6)  # rolls are taken as float32


def test_a_quick_run_prints_the_paper_s_figure_and_the_floors(tmp_path, capsys):
    arguments = ["jsb", "--form", "elman", "--quick", "--seeds", "2", "--budget", "2"]
    assert command.main([*arguments, "--data", in_file(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "2 updates: train " in said
    assert "paper: 9.10" in said
    assert "floor: note by note: " in said


@pytest.mark.parametrize("worst", ["NFG", "NP"])
def test_the_ablations_are_put_in_their_order(tmp_path, monkeypatch, worst):
    def train(net, *_):
        name = next(name for name, other in music.VARIANTS.items() if other is net)
        score = {"NOAF": 9.0, worst: 9.5, "FGR": 10.0, "CIFG": 8.0}.get(name, 8.5)
        return music.Outcome(np.zeros(2), np.array([score, score]), 1, 1)

    monkeypatch.setattr(music, "train", train)
    options = results.Options(data=in_file(tmp_path), seeds=2)
    found = music.ablations("jsb-ablations", "modern", options)
    assert found.ours.startswith("CIFG 8.000 ± 0.000, vanilla 8.500")
    assert found.ours.endswith(f"NOAF 9.000 ± 0.000, {worst} 9.500 ± 0.000, FGR 10.000 ± 0.000")
    assert found.passed == (worst == "NFG")


def digits_in_file(folder, side=28):
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 300), ("test", 250)):
        parts[f"y_{part}"] = np.arange(count, dtype=np.uint8) % 10
        parts[f"x_{part}"] = rng.integers(0, 256, (count, side, side), np.uint8)
    np.savez(folder / "mnist.npz", **parts)
    return str(folder)


def test_what_are_no_digits_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--data: there is no mnist\.npz in "):
        pixels.load(str(tmp_path))
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 28, 28\) and \(N,\), got "):
        pixels.load(digits_in_file(tmp_path, 27))
    (tmp_path / "mnist.npz").write_text("no digits")
    with pytest.raises(ValueError, match="is not MNIST as Keras has it"):
        pixels.load(str(tmp_path))


def test_networks_begin_as_their_papers_say():
    key = jax.random.key(0)
    irnn, *_ = pixels.init("irnn", False, key)
    np.testing.assert_array_equal(irnn.w_h, np.eye(pixels.UNITS))
    assert np.abs(irnn.w_x).max() < 0.005
    in_order, *_ = pixels.init("lstm", True, key)
    np.testing.assert_array_equal(in_order.b[0], -in_order.b[1])
    assert np.exp(in_order.b[1]).max() < pixels.SPAN
    permuted, *_ = pixels.init("lstm", False, key)
    np.testing.assert_array_equal(permuted.b[1], 1)


def test_the_nearest_mean_is_found():
    images = np.repeat(np.arange(10, dtype=np.uint8)[:, None] * 25, 784, 1)
    train = pixels.Digits(images.repeat(2, 0), np.arange(10).repeat(2))
    test = pixels.Digits(images + np.uint8(5), np.array([*range(8), 0, 0]))
    assert pixels._floor(train, test) == "one class: 30.0%; the nearest mean: 80.0%"


def test_a_kept_run_over_pixels_goes_on_with_the_same_digits_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pixels, "HELD_OUT", 250)
    words = ["pmnist", "--form", "irnn", "--budget", "1", "--keep", str(tmp_path / "kept")]
    run = lambda: command.main([*words, "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    digits_in_file(tmp_path)
    assert run() == 0
    assert run() == 0
    assert "goes on after 1 updates" in capsys.readouterr().out
    with np.load(tmp_path / "mnist.npz") as found:
        parts = dict(found)
    np.savez(tmp_path / "mnist.npz", **parts | {"y_train": parts["y_train"][::-1]})
    with pytest.raises(ValueError, match="data"):
        run()


def test_a_quick_run_over_pixels(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pixels, "HELD_OUT", 250)
    arguments = ["pmnist", "--form", "irnn", "--quick", "--budget", "1"]
    assert command.main([*arguments, "--data", digits_in_file(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "1 updates: loss " in said
    assert "floor: one class: 10.0%" in said
