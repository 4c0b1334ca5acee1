"""One who knows the format of checkpoints and computes every hash anew."""

import copy
import hashlib
import json
import math
import os
import random
import shutil
import socket
from pathlib import Path
from typing import Any

ABSENT = object()


class Forger:
    """What an attacker can do with a folder of checkpoints, the newest being 2.

    Args:
      folder: of the checkpoints.
      outside: a folder that nobody may touch.
      rng: of what is random.
    """

    def __init__(self, folder: Path, outside: Path, rng: random.Random):
        self.folder, self.outside, self.rng = folder, outside, rng
        self.place = folder / "2"

    def listed(self) -> Any:
        return json.loads((self.place / "manifest.json").read_text())["manifest"]

    def sign(self, listed: Any) -> None:
        """Writes a manifest with its right hash."""
        self.sign_text(json.dumps(listed, sort_keys=True, separators=(",", ":")))

    def sign_text(self, body: str, head: str = "") -> None:
        digest = hashlib.sha256(body.encode()).hexdigest()
        text = f'{head}{{"sha256": "{digest}", "manifest": {body}}}'
        (self.place / "manifest.json").write_text(text)

    def put(self, keys: tuple, value: Any) -> None:
        """One value of the manifest."""
        listed = replaced(self.listed(), keys, value)
        self.sign(listed)

    def forge(self, name: str, raw: bytes) -> None:
        """One small file, with the size and hash that it has."""
        (self.place / "arrays" / name).write_bytes(raw)
        listed = self.listed()
        listed["files"][name] = [len(raw), hashlib.sha256(raw).hexdigest()]
        self.sign(listed)

    def put_in(self, name: str, keys: tuple, value: Any) -> None:
        """One value of one JSON file."""
        there = json.loads((self.place / "arrays" / name).read_text())
        self.forge(name, json.dumps(replaced(there, keys, value)).encode())


def replaced(tree: Any, keys: tuple, value: Any) -> Any:
    """The tree with another value at a place; ABSENT for none."""
    if not keys:
        return {} if value is ABSENT else value
    tree = copy.copy(tree)
    if value is ABSENT and len(keys) == 1:
        del tree[keys[0]]
    else:
        there = tree.get(keys[0], {}) if isinstance(tree, dict) else tree[keys[0]]
        tree[keys[0]] = replaced(there, keys[1:], value)
    return tree


def deep(depth: int, leaf: str = "") -> str:
    return "[" * depth + leaf + "]" * depth


def deep_list(depth: int) -> Any:
    return json.loads(deep(depth))


def values(outside: Path) -> dict[str, Any]:
    """Values that nobody expects."""
    up = os.path.relpath(outside, outside.parent / "trial" / "checkpoints" / "2" / "arrays")
    return {
        **{"absent": ABSENT, "null": None, "true": True, "false": False, "0": 0, "1": 1, "2": 2},
        **{"-1": -1, "2.0": 2.0, "1e-300": 1e-300, "nan": math.nan, "inf": -math.inf},
        **{"2^64": 2**64, "10^4000": 10**4000, "text": "", "two": "2", "nul": "\0", "dot": "."},
        **{"surrogate": "\ud800", "up": up, "absolute": str(outside), "long": "x" * 100_000},
        **{"list": [], "object": {}, "pair": [[5, 7]], "floats": [5.0, 7.0], "bools": [True, 35]},
        **{"negative": [-5, -7], "huge": [2**62, 2**62], "more": [5, 7, 1], "deep": deep_list(400)},
        **{"shape": {"0": 5, "1": 7}, "comma": ",", "many": "f4," * 9999, "O": "O", "V": "V99999"},
        **{"keys": {"a": {"b": None}}, "words": ["a", None, 0.5], "zero": [0, 2**62]},
    }


def become(f: Forger, path: Path, bait: Path, kind: str) -> None:
    """Puts something else at a path: a link, a pipe, folders in folders."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(f"/proc/self/fd/{(d := os.open(path.parent, os.O_RDONLY))}/{path.name}")
            os.close(d)
    elif kind in ("folder", "deep"):
        path.mkdir()
        descriptor = os.open(path, os.O_RDONLY)
        for _ in range(1500 if kind == "deep" else 0):
            os.mkdir("d", dir_fd=descriptor)
            below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        os.close(descriptor)
    elif kind == "hard":
        os.link(bait if bait.is_file() else f.outside / "LOCK", path)
    else:
        target = {"bait": bait, "loop": path, "nowhere": f.outside / "nowhere"}.get(kind, kind)
        path.symlink_to(target)


def mutated(f: Forger, count: int) -> None:
    """Random changes of one JSON file, signed; or of any file's bytes, signed if it is small."""
    for number in range(f.rng.randint(1, count)):
        if number and not _is_whole(f):
            return  # what is not as it was can't be changed as such
        kind = f.rng.choice(["manifest", "manifest", "tree", "bytes"])
        if kind == "manifest":
            listed = f.listed()
            keys = _some_keys(listed, f.rng)
            f.sign(replaced(listed, keys, _some_value(f, listed)))
        elif kind == "tree":
            name = f.rng.choice(["_METADATA", "_CHECKPOINT_METADATA", "params.w/.zarray"])
            there = json.loads((f.place / "arrays" / name).read_text())
            keys = _some_keys(there, f.rng)
            f.forge(name, json.dumps(replaced(there, keys, _some_value(f, there))).encode())
        else:
            _edit(f)


def _is_whole(f: Forger) -> bool:
    names = ["_METADATA", "_CHECKPOINT_METADATA", "params.w/.zarray"]
    try:
        for name in names:
            json.loads((f.place / "arrays" / name).read_text())
        return set(names) < set(f.listed()["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _edit(f: Forger) -> None:
    files = sorted(path for path in f.place.rglob("*") if path.is_file())
    path = f.rng.choice(files)
    raw = bytearray(path.read_bytes())
    at = f.rng.randrange(len(raw))
    end = min(len(raw), at + f.rng.choice([0, 1, 4, 100]))
    raw[at:end] = f.rng.randbytes(f.rng.choice([0, 1, 4, 100]))
    name = str(path.relative_to(f.place / "arrays")) if path.parent != f.place else path.name
    if name in f.listed()["files"] and path.parent != f.place:
        f.forge(name, bytes(raw))
    else:
        path.write_bytes(raw)


def _some_keys(tree: Any, rng: random.Random) -> tuple:
    keys: tuple = ()
    while isinstance(tree, dict | list) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
        keys, tree = (*keys, key), tree[key]
    return keys


def _some_value(f: Forger, tree: Any) -> Any:
    if f.rng.random() < 0.3:  # of another place
        keys = _some_keys(tree, f.rng)
        for key in keys:
            tree = tree[key]
        return tree
    return f.rng.choice(list(values(f.outside).values()))
