import numpy as np
import pytest

from jaxlstm.data.text import Streams, Vocabulary, words


def test_vocabulary_keeps_the_most_frequent_symbols_and_counts_the_rest_as_unknown():
    vocabulary = Vocabulary.build(list("babcab"), size=3)
    assert vocabulary.symbols == ("<unk>", "b", "a")
    assert vocabulary.encode(["a", "c", "b"]).tolist() == [2, 0, 1]
    assert vocabulary.decode([1, 2]) == ["b", "a"]


def test_characters_beyond_ascii_come_back():
    text = "naïve 日本 🎵\n"
    vocabulary = Vocabulary.build(text)
    assert "".join(vocabulary.decode(vocabulary.encode(text))) == text


def test_words_end_their_lines():
    assert words("a b\n\nc") == ["a", "b", "<eos>", "<eos>", "c", "<eos>"]


@pytest.mark.parametrize("symbols", ["", []])
def test_no_vocabulary_of_nothing(symbols):
    with pytest.raises(ValueError, match="symbols: expected a text, got none"):
        Vocabulary.build(symbols)


def test_no_vocabulary_of_one():
    with pytest.raises(ValueError, match="size: expected at least 2"):
        Vocabulary.build("ab", size=1)


def test_streams_cover_the_text_in_order_and_begin_again():
    streams = Streams(np.arange(23), batch=2, window=3)
    epoch = [next(streams) for _ in range(streams.windows)]
    assert [w.fresh for w in epoch] == [True, False, False]
    first = np.concatenate([w.inputs[:, 0] for w in epoch])
    second = np.concatenate([w.inputs[:, 1] for w in epoch])
    np.testing.assert_array_equal(first, np.arange(9))
    np.testing.assert_array_equal(second, 11 + np.arange(9))
    for w in epoch:
        np.testing.assert_array_equal(w.targets, w.inputs + 1)
    assert next(streams).fresh
    state = streams.get_state()
    assert (state["epoch"], state["window"]) == (1, 1)


def test_streams_go_on_from_a_state():
    streams = Streams(np.arange(50), batch=3, window=4)
    for _ in range(5):
        next(streams)
    other = Streams(np.arange(50), batch=3, window=4)
    other.set_state(streams.get_state())
    for _ in range(6):
        np.testing.assert_array_equal(next(other).inputs, next(streams).inputs)


def test_streams_refuse_a_state_of_another_text():
    state = Streams(np.arange(11), batch=2, window=2).get_state()
    with pytest.raises(ValueError, match=r"another iterator: sha256: \"\w+\" there, \"\w+\" here$"):
        Streams(np.arange(10), batch=2, window=2).set_state(state)  # what is left out counts too
    with pytest.raises(ValueError, match=r"another iterator: window: 2 there, 3 here$"):
        Streams(np.arange(11), batch=2, window=3).set_state(state)
    with pytest.raises(ValueError, match=r"state: expected a window in \[0, 2\) of epoch 0, got 7"):
        Streams(np.arange(11), batch=2, window=2).set_state({**state, "window": 7})


def test_streams_refuse_a_state_from_before_there_were_identities():
    with pytest.raises(ValueError, match="state: identity is missing"):
        Streams(np.arange(11), batch=2, window=3).set_state({"epoch": 0, "window": 0})


def test_each_shard_has_streams_of_its_own_that_begin_together():
    parts = [Streams(np.arange(41), batch=4, window=3, shard=(index, 2)) for index in range(2)]
    assert [part.windows for part in parts] == [3, 3]
    for number in range(3):
        left, right = (next(part) for part in parts)
        begin = 3 * number + np.arange(3)[:, None]
        np.testing.assert_array_equal(left.inputs, np.add(begin, [0, 10]))
        np.testing.assert_array_equal(right.targets, np.add(begin, [21, 31]))
        assert left.fresh == right.fresh == (number == 0)


def test_streams_of_the_same_numbers_are_the_same_whatever_they_come_in():
    state = Streams(np.arange(11, dtype=np.int64), batch=2, window=2).get_state()
    Streams(list(range(11)), batch=2, window=2).set_state(state)


def test_streams_refuse_a_text_that_is_too_short():
    too_short = "tokens: a text of 30 is too short for 4 streams with windows of 8: at least 36"
    with pytest.raises(ValueError, match=too_short):
        Streams(np.arange(30), batch=4, window=8)
    with pytest.raises(ValueError, match="tokens: a text of 0 is too short"):
        Streams([], batch=4, window=8)


@pytest.mark.parametrize(
    ("tokens", "got"),
    [
        (np.arange(30.0), r"\(30,\) of float64"),
        (np.ones(30, bool), r"\(30,\) of bool"),
        (np.zeros((30, 2), np.int32), r"\(30, 2\) of int32"),
        (3, r"\(\) of int64"),
        (["a", "b"], r"\(2,\) of <U1"),
        ([*range(30), -1], "some from -1 to 29"),
        ([*range(30), 2**31], "some from 0 to 2147483648"),
        (np.array([2**64 - 1] * 30, np.uint64), "some from 18446744073709551615 to"),
    ],
)
def test_tokens_are_never_cast_to_others(tokens, got):
    expected = r"tokens: expected \(N,\) integers in \[0, 2\*\*31\), got "
    with pytest.raises(ValueError, match=expected + got):
        Streams(tokens, batch=2, window=2)


def test_the_largest_token_stays_what_it_is():
    assert next(Streams(np.full(6, 2**31 - 1), batch=2, window=2)).inputs.max() == 2**31 - 1


@pytest.mark.parametrize(("batch", "window", "name"), [(0, 2, "batch"), (2, 0, "window")])
def test_streams_have_a_batch_and_a_window(batch, window, name):
    with pytest.raises(ValueError, match=f"{name}: expected an integer in .*, got int 0"):
        Streams(np.arange(11), batch=batch, window=window)
