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
    assert streams.get_state() == {"epoch": 1, "window": 1}


def test_streams_go_on_from_a_state():
    streams = Streams(np.arange(50), batch=3, window=4)
    for _ in range(5):
        next(streams)
    other = Streams(np.arange(50), batch=3, window=4)
    other.set_state(streams.get_state())
    for _ in range(6):
        np.testing.assert_array_equal(next(other).inputs, next(streams).inputs)


def test_streams_refuse_a_state_of_another_text():
    with pytest.raises(ValueError, match=r"state: expected a window in \[0, 1\)"):
        Streams(np.arange(11), batch=2, window=3).set_state({"epoch": 0, "window": 7})


def test_streams_refuse_a_text_that_is_too_short():
    with pytest.raises(ValueError, match="too short for 4 streams with windows of 8: at least 36"):
        Streams(np.arange(30), batch=4, window=8)
