"""Checkpoints made to harm, by one who knows the format and computes every hash anew."""

import functools
import hashlib
import json
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.forger import ABSENT, Forger, become, deep, deep_list, values

SMALL = ("_METADATA", "_CHECKPOINT_METADATA", "commit_success.txt", "params.w/.zarray")
PLACES = (
    *("", "arrays", "arrays/params.w", "arrays/params.w/0.0", "arrays/params.w/.zarray"),
    *("arrays/_METADATA", "arrays/commit_success.txt", "manifest.json"),
)
LEFT = ("2.damaged", "2.writing", "3.deleting", "1.replaced", "7.replaced", "3", "9", "9.writing")


FIELDS: tuple[tuple, ...] = (
    *[(), ("format",), ("step",), ("created",), ("arrays",), ("arrays", "params.w")],
    *[("arrays", "params.w", field) for field in ("shape", "dtype", "key", "sha256")],
    *[("arrays", "key", "key"), ("arrays", "step", "shape"), ("arrays", "empty", "shape")],
    *[("files",), ("files", "_METADATA"), ("files", "_METADATA", 0), ("files", "_METADATA", 1)],
    *[("extra",), ("score",), ("finite",), ("identity",), ("identity", "config")],
    *[("made_with",), ("made_with", "jax")],
)
ZARRAY: dict[str, tuple[Any, ...]] = {
    "zarr_format": (3, 1, "2", None, 2.0),
    "compressor": ({"id": "zlib"}, {"id": "blosc", "cname": "lz4", "clevel": 9}, {"id": "x"}, []),
    "filters": ([], [{"id": "delta"}], 0),
    "dtype": ("<f8", ">f4", "<i4", "|V4000000000", "|O", "|b1", [["a", "<f4"]], "bfloat16", None),
    "chunks": ([2**40, 2**20], [1, 1], [0, 0], [-5, 7], [5], [5.0, 7.0], [True, 7], "57", [[5, 7]]),
    "shape": ([2**40, 2**20], [5, 8], [-5, -7], [5], [5, 7, 1], None, [2**70, 7], ABSENT),
    "order": ("F", None, ["C"]),
    "dimension_separator": ("/", ABSENT),
    "fill_value": (0, "NaN", 1e400, {}),
    "attributes": ({}, {"a": 1}),
}
ENTRY = ("tree_metadata", "('params.w',)")
METADATA: tuple[tuple[tuple, Any], ...] = (
    *[(("use_zarr3",), value) for value in (True, 1, "no", None, ABSENT)],
    *[(("use_ocdbt",), value) for value in (True, None, "yes", ABSENT)],
    *[(("tree_metadata",), value) for value in ({}, [], None, ABSENT, "x")],
    *[((*ENTRY,), value) for value in (ABSENT, None, [], {})],
    *[((*ENTRY, "value_metadata", "skip_deserialize"), value) for value in (True, None, 1)],
    *[
        ((*ENTRY, "value_metadata", "value_type"), value)
        for value in ("None", "Dict", "string", "scalar", "jax.Array", "os.system", None, [])
    ],
    *[
        ((*ENTRY, "value_metadata"), {"value_type": kind, "skip_deserialize": True})
        for kind in ("None", "Dict", "List")
    ],
    *[((*ENTRY, "value_metadata", "write_shape"), value) for value in ([2**62], None, "x")],
    *[
        ((*ENTRY, "key_metadata"), value)
        for value in (
            *[[], None, [{"key": "params.w", "key_type": 1}], [{"key": "99999999", "key_type": 1}]],
            *[[{"key": "params.w", "key_type": 2}] * 7, [{"key": "../../x", "key_type": 2}]],
        )
    ],
    (("value_metadata_tree",), '{"category": "namedtuple", "module": "os", "clazz": "system"}'),
    (("custom_metadata",), deep_list(200)),
)  # fmt: skip


def cases(outside: Path) -> dict[str, Callable[[Forger], None]]:
    """Each case by name; the same ones, in the same order, whenever it is asked."""
    found: dict[str, Callable[[Forger], None]] = {"as it was": lambda f: None}
    every = values(outside)
    for keys in FIELDS:
        for name in every if keys in ((), ("files",), ("step",)) else list(every)[:: len(keys) + 2]:
            found[f"manifest {'.'.join(map(str, keys))} = {name}"] = functools.partial(
                lambda f, keys, value: f.put(keys, value), keys=keys, value=every[name]
            )
    for field, options in ZARRAY.items():
        for value in options:
            found[f".zarray {field} = {_word(value)}"] = functools.partial(
                lambda f, field, value: f.put_in("params.w/.zarray", (field,), value),
                field=field, value=value,
            )  # fmt: skip
    for number, (keys, value) in enumerate(METADATA):
        found[f"_METADATA {number} {keys[-1]} = {_word(value)}"] = functools.partial(
            lambda f, keys, value: f.put_in("_METADATA", keys, value), keys=keys, value=value
        )
    names = [every[n] for n in ("up", "absolute", "dot", "nul", "surrogate", "long", "text", "O")]
    for name in (*names, "..", "a/../../..", "//", "~", "\n", "%2E%2E", "C:\\", "params"):
        for act in (_renamed, _beside, _listed):
            found[f"name {name[:30]!r} {act.__name__}"] = functools.partial(act, name=name)
    for place in PLACES:
        for kind in ("bait", "loop", "nowhere", "/dev/zero", "fifo", "socket", "folder", "hard"):
            found[f"{place or 'step'} is {kind}"] = functools.partial(_put, place=place, kind=kind)
    for place in ("LOCK", *LEFT):
        for kind in ("bait", "loop", "nowhere", "fifo", "socket", "folder", "hard", "deep"):
            found[f"{place} is {kind}"] = functools.partial(_put_left, place=place, kind=kind)
    for name in (*SMALL, "manifest.json"):
        for kind in BOMBS:
            found[f"{name} is {kind}"] = functools.partial(_bomb, name=name, kind=kind)
    alone = (_sparse, _compressed, _million, _entries, _duplicates, _odd_steps, _swapped_handler)
    found |= {act.__name__: act for act in alone}
    for name in ADDED:
        for listed in (False, True):
            found[f"added {name} {listed}"] = functools.partial(_add, name=name, listed=listed)
    return found


def _word(value: Any) -> str:
    return "absent" if value is ABSENT else str(value)[:40]


def _renamed(f: Forger, name: str) -> None:
    listed = f.listed()
    listed["arrays"][name] = listed["arrays"].pop("params.w")
    listed["files"][f"{name}/.zarray"] = listed["files"].pop("params.w/.zarray")
    f.sign(listed)


def _beside(f: Forger, name: str) -> None:
    listed = f.listed()
    listed["arrays"][name] = listed["arrays"]["params.w"]
    listed["files"][f"{name}/.zarray"] = listed["files"]["params.w/.zarray"]
    f.sign(listed)


def _listed(f: Forger, name: str) -> None:
    listed = f.listed()
    listed["files"][name] = listed["files"]["_METADATA"]
    listed["step"] = 2
    f.sign(listed)


def _put(f: Forger, place: str, kind: str) -> None:
    """Something else at a place of the newest, where that is a bait of the very same content."""
    path = f.place / place if place else f.place
    bait = f.outside / "2" / place if place else f.outside / "2"
    become(f, path, bait, kind)


def _put_left(f: Forger, place: str, kind: str) -> None:
    become(f, f.folder / place, f.outside / ("LOCK" if place == "LOCK" else "2"), kind)


class _Run:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


BOMBS: dict[str, Callable[[Forger, bytes], bytes]] = {
    "a pickle": lambda f, raw: pickle.dumps(_Run(str(f.outside / "made"))),
    "an old pickle": lambda f, raw: pickle.dumps(_Run(str(f.outside / "made")), protocol=0),
    "code": lambda f, raw: f"__import__('os').mkdir({str(f.outside / 'made')!r})".encode(),
    "deep": lambda f, raw: deep(200_000).encode(),
    "deeper than repr": lambda f, raw: deep(f.rng.randrange(200, 1000)).encode(),
    "a deep object": lambda f, raw: b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "many digits": lambda f, raw: b"1" * 1_000_000,
    "not a number": lambda f, raw: b"[NaN, -Infinity, 1e999]",
    "UTF-16": lambda f, raw: raw.decode().encode("utf-16"),
    "with a BOM": lambda f, raw: b"\xef\xbb\xbf" + raw,
    "twice": lambda f, raw: raw + raw,
    "spaces": lambda f, raw: raw + b" " * 70_000_000,
    "lists": lambda f, raw: b"[" + b"[]," * 5_000_000 + b"[]]",
    "70 MB": lambda f, raw: b"[" + b"[]," * 23_500_000 + b"[]]",
    "zeros": lambda f, raw: bytes(len(raw)),
    "null": lambda f, raw: b"null",
    "empty": lambda f, raw: b"",
    "a list": lambda f, raw: b"[]",
}


def _bomb(f: Forger, name: str, kind: str) -> None:
    if name == "manifest.json":
        path = f.place / name
        body = BOMBS[kind](f, path.read_bytes())
        if kind.startswith(("deep", "a deep", "lists")):  # signed, so that it is looked into
            listed = f.listed()
            field = f.rng.choice(["extra", "identity", "score", "step", "files"])
            listed[field] = "HERE"
            text = json.dumps(listed, sort_keys=True, separators=(",", ":"))
            f.sign_text(text.replace('"HERE"', body.decode()))
        else:
            path.write_bytes(body)
    else:
        raw = BOMBS[kind](f, (f.place / "arrays" / name).read_bytes())
        f.forge(name, raw)


ADDED = (
    *("manifest.ocdbt", "d/0", "ocdbt.process_0/manifest.ocdbt", ".zgroup", ".zattrs"),
    *("checkpoint", "_sharding", "_strings.json", "array_metadatas/process_0"),
    *("params.w/0.1", "x/.zarray", "x"),
)  # fmt: skip


def _add(f: Forger, name: str, listed: bool) -> None:
    raw = pickle.dumps(_Run(str(f.outside / "made")))
    if name == "checkpoint":  # Orbax's of old, in msgpack: an extension type that it would decode
        raw = b"\x81\xa8params.w" + struct.pack(">BIb", 0xC9, 3, 1) + b"abc"
    path = f.place / "arrays" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    if listed:
        f.forge(name, raw)


def _sparse(f: Forger) -> None:
    """An array of 256 GB that takes no room on the disk."""
    listed, folder = f.listed(), f.place / "arrays" / "params.huge"
    listed["arrays"]["params.huge"] = {**listed["arrays"]["params.w"], "shape": [1 << 36]}
    folder.mkdir()
    with (folder / "0").open("wb") as file:
        file.truncate(1 << 38)
    f.sign(listed)
    description = json.loads((f.place / "arrays" / "params.w" / ".zarray").read_text())
    description |= {"shape": [1 << 36], "chunks": [1 << 36]}
    f.forge("params.huge/.zarray", json.dumps(description).encode())
    f.put_in("_METADATA", ("tree_metadata", "('params.huge',)"), {
        "key_metadata": [{"key": "params.huge", "key_type": 2}],
        "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False},
    })  # fmt: skip


@functools.cache
def _packed() -> bytes:
    packer, block = zlib.compressobj(), bytes(1 << 24)
    return b"".join([*(packer.compress(block) for _ in range(64)), packer.flush()])


def _compressed(f: Forger) -> None:
    """1 GB of zeros, packed."""
    f.put_in("params.w/.zarray", ("compressor",), {"id": "zlib", "level": 1})
    (f.place / "arrays" / "params.w" / "0.0").write_bytes(_packed())


def _million(f: Forger) -> None:
    """A million arrays: too large to be read."""
    listed = f.listed()
    listed["arrays"] |= {f"a{n}": {} for n in range(1_000_000)}
    f.sign(listed)


def _entries(f: Forger) -> None:
    """As many arrays as may be listed, of which none is there."""
    listed = f.listed()
    one = {**listed["arrays"]["params.w"], "sha256": ""}
    listed["arrays"] |= {f"a{n}": one for n in range(200_000)}
    f.sign(listed)


def _duplicates(f: Forger) -> None:
    """Each name twice, of which different readers take different ones."""
    body = json.dumps(f.listed(), sort_keys=True, separators=(",", ":"))
    evil = body.replace('"params.w":{', '"params.w":{"shape":[99,99],')
    digest = hashlib.sha256(body.encode()).hexdigest()
    text = f'{{"manifest": {evil}, "sha256": "", "manifest": {body}, "sha256": "{digest}"}}'
    (f.place / "manifest.json").write_text(text)
    raw = (f.place / "arrays" / "params.w" / ".zarray").read_bytes()
    f.forge("params.w/.zarray", raw.replace(b"{", b'{"shape":[99999,99999],"chunks":[9,9],', 1))


def _odd_steps(f: Forger) -> None:
    """Folders whose names are a number to somebody."""
    for name in ("007", "02", "1e3", "²", "٣", "-1", "+2", "1_0", "2 ", "0x2", "9" * 200, "2.0"):
        shutil.copytree(f.place, f.folder / name)


def _swapped_handler(f: Forger) -> None:
    for key in ("item_handlers", "custom_metadata", "metrics"):
        f.put_in("_CHECKPOINT_METADATA", (key,), "os.system")
