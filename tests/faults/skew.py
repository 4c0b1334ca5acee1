"""A checkpoint that is sound, and not of this run: each field in which it can differ.

For each there is an error of a kind of its own that says which field it is, what it was there and
what it is here; nothing is cast, nothing set aside, nothing on the disk is another than before.
"""

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.data.buckets import Buckets
from jaxlstm.data.text import Streams
from jaxlstm.train import manifest, restoring
from jaxlstm.train.manifest import MismatchError
from tests.faults import forger, kept
from tests.faults.harness import Failure, Outcome, battery, expect


class Trial(NamedTuple):
    name: str  # its kind, a colon, and which
    ask: Callable[[Path], Any]  # of a folder of checkpoints
    words: tuple[str, ...]  # that the error must have
    prepare: Callable[[Path], None] = lambda made: None  # makes the newest another before


def skewed(folder: Path, most: int | None = None) -> Outcome:
    """All trials, or some; each in a copy of the same two checkpoints."""
    template = kept.filled(folder / "template", 1, 2)
    made = kept.renew(folder / "checkpoints", template)
    _opened(made)  # of this very run: taken
    trials = [*_of_versions(), *_of_format(), *_of_state(), *_of_identity(), *_of_data()]
    if most is not None:
        trials = random.Random("skew").sample(trials, most)

    def attempt(number):
        trial = trials[number]
        kept.renew(made, template)
        trial.prepare(made)
        said = _refusal(trial, made)
        missing = [word for word in trial.words if word not in said]
        expect(not missing, trial.name, "does not say", missing, "but", said)
        return trial.name.split(":")[0]

    return battery("versions, shapes, configs and data of others", range(len(trials)), attempt)


def _refusal(trial: Trial, made: Path) -> str:
    """What the error says; Failure if there is none, or if anything was changed."""
    before = kept.content(made)
    try:
        trial.ask(made)
    except (MismatchError, _Refused) as error:
        said = str(error)
    except Exception as error:
        raise Failure(f"{trial.name}: raised {error!r}") from error
    else:
        raise Failure(f"{trial.name}: was taken")
    after = kept.content(made)
    before.pop("LOCK"), after.pop("LOCK")  # which says who wrote last
    expect(before == after, trial.name, "changed something on the disk")
    return said


class _Refused(ValueError):
    """What an iterator says, which has no class of its own."""


def _opened(made: Path, like: Any = None, identity: Any = None, setting: Any = None) -> None:
    identity = kept.IDENTITY if identity is None else identity
    setting = kept.SETTING if setting is None else setting
    with kept.store(made, identity, setting) as store:
        found = store.restore(kept.like() if like is None else like)
    kept.expect_same(found.state, 2)


def _signed(keys: tuple, value: Any) -> Callable[[Path], None]:
    """Another value in the newest manifest, with its right hash."""
    return lambda made: forger.Forger(made, made, random.Random(0)).put(keys, value)


def _of_versions() -> list[Trial]:
    """Each library, the Python and the platform: another, or not said."""
    trials = []
    for field, here in manifest.versions().items():
        for there in ("0.0.1", forger.ABSENT):
            shown = None if there is forger.ABSENT else there
            words = (f"{field}: {shown!r} there, {here!r} here",)
            prepare = _signed(("made_with", field), there)
            trials.append(Trial(f"versions: {field} {shown}", _opened, words, prepare))
    return trials


def _of_format() -> list[Trial]:
    asks: dict[str, Callable[[Path], Any]] = {
        "restore": lambda made: restoring.restore(made, 2, kept.like()),
        "restore_latest": lambda made: restoring.restore_latest(made, kept.like()),
        "restore_part": lambda made: restoring.restore_part(made, kept.like().params),
        "Checkpoints.restore": _opened,
    }
    trials = []
    for there in (manifest.FORMAT - 1, manifest.FORMAT + 1, "2", forger.ABSENT):
        shown = None if there is forger.ABSENT else there
        words = (f"of format {shown}", f"this version reads {manifest.FORMAT}")
        for way, ask in asks.items():
            prepare = _signed(("format",), there)
            trials.append(Trial(f"format: {shown} by {way}", ask, words, prepare))
    return trials


def _of_state() -> list[Trial]:
    """Shapes, dtypes, leaves too many and too few, keys; by each way to read."""
    like = kept.like()
    params, w = like.params, like.params["w"]
    part: list[tuple[str, Any, tuple[str, ...]]] = [
        ("shape: transposed", {**params, "w": w.T}, ("params.w", "(5, 7)", "(7, 5)")),
        ("shape: longer", {**params, "w": np.zeros((6, 7), w.dtype)}, ("params.w", "(6, 7)")),
        ("shape: one axis more", {**params, "w": w[None]}, ("params.w", "(1, 5, 7)")),
        ("shape: of as many", {**params, "w": w.reshape(35)}, ("params.w", "(35,)")),
        ("shape: none", {**params, "mask": np.zeros(0, bool)}, ("params.mask", "(6,)", "(0,)")),
        ("leaf: missing", {**params, "new": w}, ("params.new is missing",)),
        ("leaf: renamed", {**_without(params, "w"), "W": w}, ("params.W is missing",)),
        ("leaf: too many", _without(params, "w"), ("params.w is not expected",)),
        ("leaf: deeper", {**params, "w": {"w": w}}, ("params.w",)),
    ]
    for dtype in ("float64", "float16", "bfloat16", "int32", "uint32", "bool", "complex64"):
        other = {**params, "w": np.zeros(w.shape, jnp.dtype(dtype))}
        part.append((f"dtype: {dtype}", other, ("params.w", "float32", f"expected {dtype}")))
    whole = [
        ("dtype: a count", like._replace(step=np.int32(0)), ("step is int64", "expected int32")),
        ("dtype: an empty one", like._replace(empty=np.zeros((0, 3))), ("empty is int8",)),
        (
            "shape: an empty one",
            like._replace(empty=np.zeros((0, 4), np.int8)),
            ("(0, 3)", "(0, 4)"),
        ),
        ("leaf: None", like._replace(zeros=None), ("zeros is not expected",)),
        ("key: rbg", like._replace(key=jax.random.key(0, impl="rbg")), ("threefry", "rbg key")),
        (
            "key: unsafe_rbg",
            like._replace(key=jax.random.key(0, impl="unsafe_rbg")),
            ("key is", "threefry2x32", "unsafe_rbg"),
        ),
        ("key: plain", like._replace(key=np.zeros(2, np.uint32)), ("threefry2x32 key", "uint32")),
        ("key: many", like._replace(key=jax.random.split(like.key)), ("(2,)", "(2, 2)")),
        ("key: none", like._replace(key=np.zeros((), np.float32)), ("key is", "float32")),
    ]
    whole += [(name, like._replace(params=p), words) for name, p, words in part]
    ways: dict[str, Callable[[Path, Any], Any]] = {
        "restore_latest": restoring.restore_latest,
        "restore": lambda made, like: restoring.restore(made, 2, like),
        "Checkpoints.restore": _opened,
    }
    ask = lambda way, like: lambda made: way(made, like)
    trials = [
        Trial(f"{name} by {way}", ask(ways[way], other), words)
        for name, other, words in whole
        for way in ways
    ]
    trials += [
        Trial(f"{name} by restore_part", ask(restoring.restore_part, p), w) for name, p, w in part
    ]
    none = lambda made: restoring.restore_part(made, kept.like().params, "parameters")
    return [*trials, Trial("leaf: no such part", none, ("parameters.", "is missing"))]


def _without(params: dict, name: str) -> dict:
    return {n: a for n, a in params.items() if n != name}


def _of_identity() -> list[Trial]:
    """The config, the fingerprint of the data, the devices: another, missing, one more."""
    config, text = kept.IDENTITY["config"], kept.IDENTITY["text"]
    with_config = lambda **fields: {"config": {**config, **fields}, "text": text}
    others = {
        "config: number": (with_config(hidden=13), "config.hidden: 12 there, 13 here"),
        "config: 12.0": (with_config(hidden=12.0), "config.hidden: 12 there, 12.0 here"),
        "config: text": (with_config(rate="0.5"), "config.rate: 0.5 there, '0.5' here"),
        "config: one more": (with_config(layers=2), "config.layers: None there, 2 here"),
        "config: nested": (with_config(rate={"a": 1}), "config.rate: 0.5 there, {'a': 1} here"),
        "config: missing": (
            {"config": _without(config, "hidden"), "text": text},
            "config.hidden: 12 there, None here",
        ),
        "config: none": (
            {"text": text},
            "config: {'hidden': 12, 'rate': 0.5} there, None here",
        ),
        "data: fingerprint": (
            {"config": config, "text": "cd" * 32},
            f"text: '{text}' there, '{'cd' * 32}' here",
        ),
        "data: none": ({"config": config}, f"text: '{text}' there, None here"),
    }
    settings = (
        ({"devices": 2}, "devices: 1 there, 2 here"),
        ({"devices": "1"}, "devices: 1 there, '1' here"),
        ({}, "devices: 1 there, None here"),
        ({"devices": 1, "mesh": [1, 1]}, "mesh: None there, [1, 1] here"),
    )
    ask = lambda **options: lambda made: _opened(made, **options)
    trials = [Trial(n, ask(identity=i), (words,)) for n, (i, words) in others.items()]
    return trials + [Trial(f"setting: {s}", ask(setting=s), (words,)) for s, words in settings]


def _of_data() -> list[Trial]:
    """The place in the data that a checkpoint has, given to an iterator over other data."""
    rng = np.random.default_rng(0)
    tokens, ragged = rng.integers(0, 9, 400), [rng.normal(size=(n % 5, 2)) for n in range(23)]
    streams = functools.partial(Streams, tokens, batch=4, window=8)
    buckets = functools.partial(Buckets, ragged, batch=4, bounds=(2, 4), seed=3)
    other = [s + 1 for s in ragged]
    cases: list[tuple[str, Callable, Callable, tuple[str, ...]]] = [
        ("text", streams, lambda: Streams(tokens[::-1], 4, 8), ("sha256",)),
        ("longer text", streams, lambda: Streams([*tokens, 1], 4, 8), ("sha256",)),
        ("batch", streams, lambda: streams(batch=8), ("batch: 4 there, 8 here",)),
        ("window", streams, lambda: streams(window=9), ("window: 8 there, 9 here",)),
        ("shards", streams, lambda: streams(shard=(0, 2)), ("shards: 1 there, 2 here",)),
        ("Buckets", streams, buckets, ('kind: "streams" there, "buckets" here',)),
        ("sequences", buckets, lambda: Buckets(other, 4, bounds=(2, 4), seed=3), ("sha256",)),
        (
            "fewer",
            buckets,
            lambda: Buckets(ragged[:-1], 4, bounds=(2, 4), seed=3),
            ("samples: 23",),
        ),
        ("seed", buckets, lambda: buckets(seed=4), ("seed: 3 there, 4 here",)),
        ("no seed", buckets, lambda: buckets(seed=None), ("seed: 3 there, null here",)),
        ("batch", buckets, lambda: buckets(batch=5), ("batch: 4 there, 5 here",)),
        ("bounds", buckets, lambda: buckets(bounds=(3, 4)), ("[2, 4] there, [3, 4] here",)),
        ("shards", buckets, lambda: buckets(shard=(1, 2)), ("shards: 1 there, 2 here",)),
        ("labels", buckets, lambda: buckets(labels=np.zeros(23)), ("labels: null there",)),
        ("targets", buckets, lambda: buckets(targets=ragged), ("targets: null there",)),
    ]
    return [
        Trial(f"data: {name}", functools.partial(_placed, there, here), words, _saved(there))
        for name, there, here, words in cases
    ]


def _saved(there: Callable[[], Any]) -> Callable[[Path], None]:
    def prepare(made: Path) -> None:
        iterator = there()
        next(iterator)
        with kept.store(made, keep=3) as store:
            store.save(3, kept.state(3), iterator.get_state())

    return prepare


def _placed(there: Callable[[], Any], here: Callable[[], Any], made: Path) -> None:
    found = restoring.restore_latest(made, kept.like())
    assert found is not None
    there().set_state(found.extra)  # of the very same data: taken
    iterator = here()
    before = iterator.get_state()
    try:
        iterator.set_state(found.extra)
    except ValueError as error:
        expect(iterator.get_state() == before, "the iterator's place is another now")
        raise _Refused(str(error)) from error
