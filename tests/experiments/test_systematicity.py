"""SCAN: the commands, their meaning, the splits, and the network that learns them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from experiments.long_lags import __main__ as command
from experiments.long_lags import commands, systematicity, translation
from experiments.long_lags.commands import Example

KEY = jax.random.key(0)
EVERY = dict(commands.every())


@pytest.mark.parametrize(
    ("said", "meant"),
    [  # of the paper's figure 1 and what it says of each word
        ("jump", "JUMP"),
        ("jump left", "LTURN JUMP"),
        ("jump around right", "RTURN JUMP RTURN JUMP RTURN JUMP RTURN JUMP"),
        ("turn left twice", "LTURN LTURN"),
        ("jump thrice", "JUMP JUMP JUMP"),
        ("jump opposite left and walk thrice", "LTURN LTURN JUMP WALK WALK WALK"),
        (
            "jump opposite left after walk around left",
            "LTURN WALK LTURN WALK LTURN WALK LTURN WALK LTURN LTURN JUMP",
        ),
        ("turn opposite right", "RTURN RTURN"),
        ("turn around left twice", " ".join(["LTURN"] * 8)),
    ],
)
def test_what_commands_mean(said, meant):
    assert EVERY[said] == meant


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("simple", 16_728, 4_182), ("length", 16_990, 3_920), ("jump", 14_670, 7_706)],
)
def test_splits_have_the_paper_s_sizes_and_take_nothing_twice(name, train, test):
    split = commands.split(name)
    assert (len(split.train), len(split.test)) == (train, test)
    assert set(split.train).isdisjoint(split.test)
    assert set(split.train) | set(split.test) == set(EVERY.items())
    assert len(EVERY) == 20_910
    lengths = [{len(e.actions.split()) for e in part} for part in split]
    assert max(set.union(*lengths)) == 48
    if name == "length":
        assert max(lengths[0]) == 22
        assert min(lengths[1]) == 24
    if name == "jump":
        assert {e.command for e in split.train if "jump" in e.command} == {"jump"}
        assert all("jump" in e.command for e in split.test)


def test_the_authors_files_are_read(tmp_path):
    with pytest.raises(
        ValueError, match=r"--data: expected the folder of SCAN, with .*train_simple"
    ):
        commands.read(tmp_path, "simple")
    (tmp_path / "simple_split").mkdir()
    train, test = (tmp_path / name for name in commands.FILES["simple"])
    train.write_text("IN: look left OUT: I_TURN_LEFT I_LOOK\nIN: run OUT: I_RUN\n")
    test.write_text("IN: turn right OUT: I_TURN_RIGHT\n")
    found = commands.read(tmp_path, "simple")
    assert found.train == [Example("look left", "LTURN LOOK"), Example("run", "RUN")]
    assert found.test == [Example("turn right", "RTURN")]
    test.write_text("turn right\n")
    with pytest.raises(ValueError, match="expected lines 'IN: command OUT: actions', got 'turn r"):
        commands.read(tmp_path, "simple")


CELL = jl.lstm(5)
PARAMS = translation.init(KEY, CELL, 5, 4, 3)
STEP = jax.jit(CELL.step)
XS, X_LENGTHS = np.random.default_rng(0).integers(1, 4, (3, 2)), jnp.array([3, 2])


def scores(n, written):
    """Of what may come after each of `written`, by a loop over steps, for the sequence n."""
    carry = CELL.initial_carry(PARAMS.encoder, jnp.zeros(5))
    for x in XS[: X_LENGTHS[n], n]:
        carry, _ = STEP(PARAMS.encoder, carry, np.asarray(PARAMS.words)[x])
    for y in written:
        carry, h = STEP(PARAMS.decoder, carry, np.asarray(PARAMS.actions)[y])
        yield np.asarray(h) @ np.asarray(PARAMS.w) + np.asarray(PARAMS.b)


def test_right_is_what_a_network_writes_by_itself():
    written = np.zeros((4, 2), int)
    for n in range(2):
        said = [translation.END]
        for score in scores(n, said):
            said.append(int(score.argmax()))
            if len(said) == 5:
                break
        written[:, n] = said[1:]
    batch = translation.Batch(XS, X_LENGTHS, jnp.array(written), jnp.array([4, 2]))
    run = jax.jit(lambda ys: translation.right(CELL, PARAMS, batch._replace(ys=ys)))
    assert run(batch.ys).tolist() == [True, True]
    for t, n, right in [(3, 0, False), (1, 1, False), (2, 1, True)]:
        changed = batch.ys.at[t, n].set((written[t, n] + 1) % 3)
        assert run(changed)[n] == right


def test_the_loss_is_of_what_is_to_be_written_given_all_before():
    ys, y_lengths = np.array([[1, 2], [2, 0], [0, 1]]), np.array([3, 2])
    expected = 0.0
    for n, length in enumerate(y_lengths):
        before = [translation.END, *ys[: length - 1, n]]
        for y, score in zip(ys[:length, n], scores(n, before), strict=True):
            expected += (np.log(np.exp(score).sum()) - score[y]) / 2
    batch = translation.Batch(XS, X_LENGTHS, jnp.array(ys), jnp.array(y_lengths))
    found = jax.jit(lambda batch: translation.loss(CELL, PARAMS, batch))(batch)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_floor_answers_as_for_the_most_similar_command():
    known = [Example("run left twice", "A"), Example("left run", "B"), Example("walk", "C")]
    asked = [Example("run left", "A"), Example("walk walk", "C"), Example("left run twice", "A")]
    assert systematicity.nearest(commands.Split(known, asked)) == pytest.approx(200 / 3)


def test_a_few_commands_are_learned_and_the_run_says_what_it_found(monkeypatch, capsys):
    for name, value in [("UNITS", 16), ("LAYERS", 1), ("RATE", 0.03)]:
        monkeypatch.setattr(systematicity, name, value)
    few = [Example(*pair) for pair in list(EVERY.items())[:13]] * 100
    monkeypatch.setattr(commands, "split", lambda name: commands.Split(few, few))
    arguments = ["scan-simple", "--form", "gru", "--quick", "--budget", "1200"]
    assert command.main(arguments) == 0  # of each hundred a quick run takes one: all 13
    said = capsys.readouterr().out
    assert "100.00 % right of 13; 100.0 % of a tenth of those learned from" in said
    assert "paper: 99.8 % right" in said
    assert "floor: the actions of the most similar command seen: 100.00 %" in said
