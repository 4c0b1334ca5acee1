"""The fingerprint, the order and the checks, and the laws that every iterator keeps."""

import hashlib
import itertools
import json
from collections import Counter

import numpy as np
import pytest

from jaxlstm.data import position
from jaxlstm.data.buckets import Buckets
from jaxlstm.data.packing import Packing
from jaxlstm.data.position import check_identity, fingerprint, permutation
from jaxlstm.data.text import Streams
from jaxlstm.data.windows import Windows

RAGGED = [np.arange(n) + 10 * n for n in (3, 1, 5, 2, 2, 4, 1, 5, 3, 2, 1, 4, 3)]
NUMBERS = np.arange(len(RAGGED))


def windows(seed=5, batch=6, shard=(0, 1), data=0.0):
    series = [np.arange(20.0) + data, 100 + np.arange(9.0)]
    return Windows(series, 4, horizon=2, batch=batch, seed=seed, shard=shard)


def buckets(seed=5, batch=6, shard=(0, 1), data=0):
    parts = [s + data for s in RAGGED]
    kwargs = {"targets": RAGGED, "labels": NUMBERS, "seed": seed, "shard": shard}
    return Buckets(parts, batch, bounds=[2, 5], **kwargs)


def packing(seed=5, batch=6, shard=(0, 1), data=0):
    parts = [s + data for s in RAGGED]
    return Packing(parts, 5, batch, targets=RAGGED, pool=4, seed=seed, shard=shard)


def streams(batch=6, shard=(0, 1), data=0):
    return Streams(np.arange(6 * 11) + data, batch, 3, shard=shard)


SHUFFLED = [windows, buckets, packing]
ALL = [*SHUFFLED, streams]
each = pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
each_shuffled = pytest.mark.parametrize("make", SHUFFLED, ids=lambda make: make.__name__)


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for ours, theirs in zip(batches, expected, strict=True):
        assert type(ours) is type(theirs)
        for name, a, b in zip(ours._fields, ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name, strict=True)


def place(state):
    return next(name for name in state if name not in ("epoch", "identity"))


@each
def test_a_run_that_is_killed_anywhere_goes_on_as_if_it_had_not_been(make):
    whole = make()
    length = sum(whole.batches(epoch) for epoch in range(3))
    expected, going = take(whole, length), make()
    for done in range(length):
        again = make()
        again.set_state(json.loads(json.dumps(going.get_state())))
        assert_same(take(again, length - done), expected[done:])
        assert again.get_state() == whole.get_state()
        next(going)


@each
def test_the_state_counts_epochs_and_batches(make):
    iterator = make()
    for epoch in range(3):
        for number in range(iterator.batches(epoch)):
            state = iterator.get_state()
            assert (state["epoch"], state[place(state)]) == (epoch, number)
            next(iterator)


@each
@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_shards_together_are_the_batch(make, count):
    whole, parts = make(), [make(shard=(index, count)) for index in range(count)]
    for _ in range(2 * whole.batches()):
        batch, shards = next(whole), [next(part) for part in parts]
        for name, value in batch._asdict().items():
            pieces = [getattr(shard, name) for shard in shards]
            if value is None or name == "fresh":
                assert pieces == [value] * count
            else:
                np.testing.assert_array_equal(
                    np.concatenate(pieces, axis=0 if value.ndim == 1 else 1), value, strict=True
                )
    states = [part.get_state() for part in parts]
    assert all(state == states[0] for state in states)


@each
def test_another_number_of_shards_takes_over_when_it_is_told_to(make):
    two, expected = make(shard=(0, 2)), make()
    take(two, 2), take(expected, 2)
    parts = [make(shard=(index, 3)) for index in range(3)]
    for part in parts:
        with pytest.raises(ValueError, match=r"another iterator: shards: 2 there, 3 here$"):
            part.set_state(two.get_state())
        part.set_state(two.get_state(), reshard=True)
    inputs = np.concatenate([next(part).inputs for part in parts], axis=1)
    np.testing.assert_array_equal(inputs, next(expected).inputs)
    assert parts[0].get_state()["identity"]["shards"] == 3


@each
def test_the_end_of_an_epoch_is_the_beginning_of_the_next(make):
    iterator = make()
    state, count = iterator.get_state(), iterator.batches()
    iterator.set_state({**state, place(state): count - 1})
    with pytest.raises(ValueError, match=rf"in \[0, {count}\) of epoch 0, got {count}$"):
        iterator.set_state({**state, place(state): count})
    next(iterator)
    assert iterator.get_state() == {**state, "epoch": 1}


@each
@pytest.mark.parametrize("reshard", [False, True])
def test_other_data_and_another_batch_are_refused_by_name(make, reshard):
    state = make().get_state()
    with pytest.raises(ValueError, match=r"another iterator: sha256: \"\w{64}\" there, \"\w{64}\""):
        make(data=1).set_state(state, reshard)
    with pytest.raises(ValueError, match=r"another iterator: batch: 6 there, 3 here$"):
        make(batch=3).set_state(state, reshard)


@each_shuffled
def test_another_seed_is_refused_by_name(make):
    with pytest.raises(ValueError, match="another iterator: seed: 5 there, 4 here; shards: 1 "):
        make(seed=4, shard=(0, 2)).set_state(make().get_state())
    with pytest.raises(ValueError, match=r"another iterator: seed: null there, 0 here$"):
        make(seed=0).set_state(make(seed=None).get_state())


def test_one_kind_of_iterator_is_none_of_another():
    with pytest.raises(ValueError, match='kind: "windows" there, "streams" here'):
        streams().set_state(windows().get_state())


@each_shuffled
def test_each_epoch_and_each_seed_has_an_order_of_its_own(make):
    def orders(seed):
        iterator = make(seed=seed)
        return [
            [batch.inputs.tolist() for batch in take(iterator, iterator.batches(epoch))]
            for epoch in range(2)
        ]

    first, second, other, still = *orders(5), orders(6)[0], orders(None)
    assert first != second
    assert first != other
    assert still[0] == still[1]


BAD = [
    ({"epoch": True}, r"state: epoch: expected an integer in \[0, 2\*\*53\), got bool True"),
    ({"epoch": 1.0}, "state: epoch: expected an integer in .*, got float 1.0"),
    ({"epoch": -1}, "state: epoch: expected an integer in .*, got int -1"),
    ({"epoch": 2**53}, "state: epoch: expected an integer in .*, got int 9007199254740992"),
    ({"place": "1"}, "state: (batch|window): expected an integer in .*, got str '1'"),
    ({"place": -1}, "state: (batch|window): expected an integer in .*, got int -1"),
    ({"place": 99}, r"expected a (batch|window) in \[0, \d\) of epoch 0, got 99"),
    ({"place": None, "more": 1}, "state: (batch|window) is missing; more is not expected"),
    ({"identity": None}, "state: identity is missing"),
    ({"identity": [1]}, r"state: identity: expected a dict, got list \[1\]"),
    ({"identity": {}}, 'of another iterator: kind: missing there, ".*" here; format: missing'),
]


@each
@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_damaged_state_is_refused_and_nothing_moves(make, change, message):
    iterator = make()
    next(iterator)
    before = iterator.get_state()
    change = {place(before) if k == "place" else k: v for k, v in change.items()}
    state = {k: v for k, v in {**before, **change}.items() if v is not None}
    for reshard in (False, True):
        with pytest.raises(ValueError, match=message):
            iterator.set_state(state, reshard)
    assert iterator.get_state() == before


@each
def test_an_identity_is_the_same_to_the_type(make):
    iterator = make()
    for field, value, shown in (("batch", 6.0, "6.0"), ("shards", True, "true")):
        state = iterator.get_state()
        state["identity"][field] = value
        with pytest.raises(ValueError, match=f"{field}: {shown} there, [61] here"):
            iterator.set_state(state)
    del state["identity"]["shards"]
    for reshard in (False, True):
        with pytest.raises(ValueError, match="shards: missing there, 1 here"):
            iterator.set_state(state, reshard)
    state["identity"]["shards"] = 0
    with pytest.raises(ValueError, match="state: identity: shards: expected an integer in"):
        iterator.set_state(state, reshard=True)
    state = iterator.get_state()
    state["identity"]["colour"] = "red"
    with pytest.raises(ValueError, match='another iterator: colour: "red" there, missing here'):
        iterator.set_state(state)


def test_an_order_of_another_version_is_refused(monkeypatch):
    state = windows().get_state()
    monkeypatch.setattr(position, "FORMAT", 2)
    with pytest.raises(ValueError, match=r"another iterator: format: 1 there, 2 here$"):
        windows().set_state(state)


@pytest.mark.parametrize("state", [None, [0, 0], "epoch"])
def test_a_state_is_a_dict(state):
    with pytest.raises(ValueError, match="state: expected a dict of epoch, batch, identity, got"):
        windows().set_state(state)


def test_what_get_state_gave_is_nobodys_but_the_callers():
    iterator = buckets()
    iterator.get_state()["identity"]["bounds"].append(9)
    assert iterator.get_state()["identity"]["bounds"] == [2, 5]


@each
@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ((0, 4), "batch: expected a multiple of 4, the shards, got 6"),
        ((2, 2), r"shard: expected an index in \[0, 2\), got 2"),
        ((0, 0), r"shard\[1\]: expected an integer in \[1"),
        ((-1, 2), r"shard\[0\]: expected an integer in \[0"),
        ((False, True), r"shard\[0\]: expected an integer"),
        (3, r"shard: expected \(index, count\), got int 3"),
    ],
)
def test_a_shard_that_is_none_is_refused(make, shard, message):
    with pytest.raises(ValueError, match=message):
        make(shard=shard)


@each_shuffled
@pytest.mark.parametrize("seed", [-1, 2**53, 0.5, True, "0"])
def test_a_seed_is_a_natural_number(make, seed):
    with pytest.raises(ValueError, match=r"seed: expected an integer in \[0, 2\*\*53\), got"):
        make(seed=seed)


def test_numpys_integers_are_integers():
    iterator = windows(seed=np.int64(5), batch=np.int32(6), shard=(np.int64(0), np.int64(1)))
    iterator.set_state(windows().get_state())
    json.dumps(iterator.get_state())


def test_check_identity_names_all_that_differs():
    with pytest.raises(ValueError, match="of another iterator") as error:
        check_identity({"a": 1, "b": 2, "c": 0}, {"b": 3, "c": 0, "d": [4]})
    for part in ("a: 1 there, missing here", "b: 2 there, 3 here", "d: missing there, [4] here"):
        assert part in str(error.value)
    check_identity({"a": 1, "b": 2}, {"b": 3, "a": 1}, free=["b"])


def test_the_fingerprint_is_that_of_dtype_shape_and_bytes():
    x = np.array([[1, 2], [3, 4]], "<i4")
    by_hand = b"<i4 int32 (2, 2)\n" + bytes([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0])
    assert fingerprint(x) == hashlib.sha256(by_hand).hexdigest()
    others = [x.astype("<i8"), x.astype(">i4"), x.ravel(), x.T, x[:1], x.view("<f4"), x + 1]
    hashes = [fingerprint(*a) for a in [(x,), (x, x), (), *((other,) for other in others)]]
    assert len(set(hashes)) == len(hashes)
    assert fingerprint(x[:1], x[1:]) != fingerprint(x)


@pytest.mark.parametrize("block", [1, 64, 1 << 24])
def test_the_fingerprint_is_the_same_whatever_the_layout(monkeypatch, block):
    x = np.random.default_rng(0).normal(size=(5, 7, 3))
    expected = fingerprint(x)
    monkeypatch.setattr(position, "BLOCK", block)
    wide = np.zeros((10, 7, 6))
    wide[::2, :, ::2] = x
    layouts = [np.asfortranarray(x), wide[::2, :, ::2], x[::-1].copy()[::-1], x.tolist()]
    assert {fingerprint(layout) for layout in layouts} == {expected}
    for empty in (np.zeros((0, 3)), np.zeros((3, 0)).T, np.float64(2), np.array("2026", "M8[Y]")):
        fingerprint(empty)


def test_objects_have_no_fingerprint():
    with pytest.raises(ValueError, match=r"arrays\[1\]: expected numbers, got Python objects"):
        fingerprint(np.zeros(2), np.array([None]))


def philox(key, counter, size):
    """Philox4x64-10 after Salmon et al. 2011, in Python's integers."""
    mask, out = 2**64 - 1, []
    while len(out) < size:
        counter = (counter + 1) % 2**256  # NumPy counts before it draws
        a, b, c, d = (counter >> 64 * i & mask for i in range(4))
        k = list(key)
        for _ in range(10):
            left, right = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
            a, c = right >> 64 ^ b ^ k[0], left >> 64 ^ d ^ k[1]
            b, d = right & mask, left & mask
            k = [k[0] + 0x9E3779B97F4A7C15 & mask, k[1] + 0xBB67AE8584CAA73B & mask]
        out += [a, b, c, d]
    return out[:size]


@pytest.mark.parametrize(
    ("seed", "epoch", "stream"), [(0, 0, 0), (3, 7, 0), (3, 7, 1), (2**53 - 1, 2**53 - 1, 0)]
)
def test_the_order_is_that_of_philox(seed, epoch, stream):
    raw = philox((seed, epoch), stream << 192, 50)
    expected = sorted(range(50), key=raw.__getitem__)
    assert permutation(50, seed, epoch, stream).tolist() == expected


def test_every_order_is_as_likely():
    counts = Counter(tuple(permutation(4, 1, epoch).tolist()) for epoch in range(2400))
    assert len(counts) == 24
    statistic = sum((n - 100) ** 2 / 100 for n in counts.values())
    assert statistic < 49.7  # chi-squared with 23 degrees of freedom, 99.9 %


@each
def test_no_epoch_is_too_far(make):
    iterator = make()
    last = 2**53 - 1
    iterator.set_state({**iterator.get_state(), "epoch": last})
    next(iterator)
    assert iterator.get_state()["epoch"] == last
    with pytest.raises(ValueError, match="epoch: expected an integer in"):
        iterator.batches(-1)
