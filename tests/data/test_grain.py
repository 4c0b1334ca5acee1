import json
from collections import Counter

import numpy as np
import pytest

from jaxlstm.data.grain import Checked
from jaxlstm.data.position import fingerprint

SIZE, BATCH = 20, 2


class Numbers:
    """0, 1, 2, ... with a state as Grain's."""

    def __init__(self, wrap=lambda n: {"next_index": n}, unwrap=lambda s: s["next_index"]):
        self.place, self.wrap, self.unwrap = 0, wrap, unwrap

    def __next__(self):
        self.place += 1
        return self.place - 1

    def get_state(self):
        return self.wrap(self.place)

    def set_state(self, state):
        self.place = self.unwrap(state)


IN_BYTES = (lambda n: bytes([255, n]), lambda s: s[1])


@pytest.mark.parametrize("kind", [(), IN_BYTES])
def test_a_state_goes_through_json_and_back(kind):
    first = Checked(Numbers(*kind), {"seed": 1})
    assert iter(first) is first
    assert [next(first), next(first)] == [0, 1]
    state = json.loads(json.dumps(first.get_state()))
    second = Checked(Numbers(*kind), {"seed": 1})
    second.set_state(state)
    assert next(second) == 2
    assert second.get_state()["identity"] == {"seed": 1}


STATES = [
    {"a": (1, (2, [3, (4,)]), ()), "b": [None, True, 0.5, "x"]},
    {0: {"next_index": 1}, (1, 2): b"\x00\xff"},
    {"tuple": [1, 2]},
    {"items": {"base64": "AAAA"}},
    {"tuple": (1,), "items": []},
    {},
    b"",
    (1, 2),
]


@pytest.mark.parametrize("inner", STATES)
def test_a_state_comes_back_to_the_type(inner):
    kept = []
    numbers = Checked(Numbers(lambda n: inner, kept.append), {"seed": 1})
    numbers.set_state(json.loads(json.dumps(numbers.get_state(), allow_nan=False)))
    assert repr(kept) == repr([inner])


def test_numpys_integers_count_as_jsons():
    numbers = Checked(Numbers(lambda n: {"n": np.int64(2), "b": np.True_}), {"seed": np.int32(1)})
    assert json.dumps(numbers.get_state()) == (
        '{"grain": {"n": 2, "b": true}, "identity": {"seed": 1}}'
    )


def test_a_state_is_nobodys_but_the_callers():
    inner = {"parents": [{"next_index": 4}]}
    kept = []
    numbers = Checked(Numbers(lambda n: inner, kept.append), {"seed": 1})
    state = numbers.get_state()
    numbers.set_state(state)
    inner["parents"][0]["next_index"] = kept[0]["parents"][0]["next_index"] = 9
    state["identity"]["seed"] = 2
    assert state["grain"] == {"parents": [{"next_index": 4}]}
    assert numbers.get_state()["identity"] == {"seed": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": {"seed": 2}}, "another iterator: seed: 2 there, 1 here$"),
        ({"identity": {"seed": True}}, "another iterator: seed: true there, 1 here$"),
        ({"identity": {}}, "another iterator: seed: missing there, 1 here$"),
        ({"identity": None}, "state: identity is missing"),
        ({"grain": None}, "state: grain is missing"),
        ({"more": 1}, "state: more is not expected"),
        ({"grain": "AAAA"}, "state: grain: expected dict, as Numbers gives, got str"),
        ({"grain": [1]}, "state: grain: expected dict, as Numbers gives, got list"),
    ],
)
def test_another_state_is_refused_and_nothing_moves(change, message):
    numbers = Checked(Numbers(), {"seed": 1})
    next(numbers)
    state = {k: v for k, v in {**numbers.get_state(), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        numbers.set_state(state)
    assert next(numbers) == 1


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"next_index": 1}, "expected bytes, as Numbers gives, got dict"),
        ({"base64": "A?"}, "a damaged base64: "),
        ({"base64": 3}, "a damaged base64: "),
        ({"tuple": 3}, "a damaged tuple: "),
        ({"items": [[1, 2, 3]]}, "a damaged items: "),
        ({"items": [[{}, 1]]}, "a damaged items: "),
    ],
)
def test_a_damaged_state_is_refused(kept, message):
    numbers = Checked(Numbers(*IN_BYTES), {"seed": 1})
    with pytest.raises(ValueError, match=f"state: grain: {message}"):
        numbers.set_state({**numbers.get_state(), "grain": kept})


def test_what_is_no_iterator_of_grain_is_refused():
    with pytest.raises(
        ValueError, match=r"iterator: expected one .* with get_state .* list_iterator$"
    ):
        Checked(iter([1]), {"seed": 1})
    with pytest.raises(
        ValueError, match=r"iterator: expected one of Grain, with __next__ .* list$"
    ):
        Checked([1], {"seed": 1})


@pytest.mark.parametrize("identity", [{}, None, "seed 1"])
def test_an_identity_says_something(identity):
    with pytest.raises(ValueError, match="identity: expected a dict of what the order depends on"):
        Checked(Numbers(), identity)


def test_what_is_no_json_is_refused():
    with pytest.raises(ValueError, match=r"identity: expected JSON, got dict {'data': array"):
        Checked(Numbers(), {"data": np.arange(3)})
    numbers = Checked(Numbers(lambda n: {"o": np.arange(2)}), {"seed": 1})
    with pytest.raises(ValueError, match=r"the state of Numbers: expected what .* got ndarray"):
        numbers.get_state()


def test_an_identity_that_is_no_json_is_another():
    with pytest.raises(ValueError, match="state: of another iterator: seed: NaN there, 1 here"):
        Checked(Numbers(), {"seed": 1}).set_state({"identity": {"seed": float("nan")}})


# With Grain itself, where it is installed.


@pytest.fixture(scope="module")
def grain():
    return pytest.importorskip("grain", reason="Grain is not installed: pip install grain")


def dataset(grain, seed=3, shards=1, index=0):
    data = grain.MapDataset.source(np.arange(SIZE)).shuffle(seed=seed).repeat()
    return iter(data[index::shards].batch(BATCH).to_iter_dataset())


def checked(grain, seed=3, shards=1, index=0):
    identity = {"sha256": fingerprint(np.arange(SIZE)), "seed": seed, "batch": BATCH}
    iterator = dataset(grain, seed, shards, index)
    return Checked(iterator, {**identity, "shard": [index, shards]})


@pytest.mark.parametrize("other", [{"seed": 4}, {"shards": 2}])
def test_grain_alone_takes_another_seed_or_shard_without_a_word(grain, other):
    batches = SIZE // BATCH
    first = dataset(grain)
    seen = [n for _ in range(batches // 2) for n in next(first).tolist()]
    second = dataset(grain, **other)
    second.set_state(first.get_state())
    seen += [n for _ in range(batches // 2) for n in next(second).tolist()]
    assert len(seen) == SIZE
    assert max(Counter(seen).values()) > 1  # some twice in the epoch, and so some not at all

    state = checked(grain).get_state()
    with pytest.raises(ValueError, match=r"another iterator: (seed: 3 there, 4|shard: .* here$)"):
        checked(grain, **other).set_state(state)


def pipelines(grain):
    here = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    source = grain.MapDataset.source(np.arange(SIZE)).shuffle(seed=1).repeat()
    plain = source.to_iter_dataset(here)
    ragged = source.map(lambda n: {"x": np.arange(1 + n % 5)}).to_iter_dataset(here)
    sampler = grain.samplers.IndexSampler(SIZE, shuffle=True, seed=2)
    numbers = grain.sources.RangeDataSource(0, SIZE, 1)
    loader = grain.DataLoader(
        data_source=numbers, sampler=sampler, worker_count=0, read_options=here
    )
    structure = {"length_struct": {"x": 8}}
    return {
        "map": source.batch(BATCH).to_iter_dataset(here),
        "filtered": plain.filter(lambda n: n % 3).batch(BATCH),
        "packed": grain.experimental.FirstFitPackIterDataset(
            ragged, num_packing_bins=2, **structure
        ),
        "split": grain.experimental.ConcatThenSplitIterDataset(ragged, **structure),
        "mixed": grain.IterDataset.mix([plain] * 2, [0.3, 0.7]),
        "loader": loader,
    }


@pytest.mark.parametrize("name", ["map", "filtered", "packed", "split", "mixed", "loader"])
def test_grain_goes_on_from_every_position(grain, name):
    new = lambda: Checked(iter(pipelines(grain)[name]), {"pipeline": name})
    show = lambda batch: json.dumps(batch, default=lambda a: a.tolist())
    whole = new()
    expected = [show(next(whole)) for _ in range(12)]
    going = new()
    for done in range(12):
        again = new()
        again.set_state(json.loads(json.dumps(going.get_state())))
        assert [show(next(again)) for _ in range(12 - done)] == expected[done:]
        next(going)


def test_the_end_of_a_dataset_is_the_end(grain):
    numbers = Checked(iter(grain.MapDataset.range(3).to_iter_dataset()), {"range": 3})
    assert [int(n) for n in numbers] == [0, 1, 2]
