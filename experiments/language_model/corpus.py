"""The texts: the standard library's source, a downloaded corpus, or the user's own files."""

import sysconfig
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.language_model.config import Config
from jaxlstm.data.position import fingerprint
from jaxlstm.data.text import Vocabulary, words
from jaxlstm.interop.arrays import needed

TINY_SHAKESPEARE = {
    "url": "https://raw.githubusercontent.com/karpathy/char-rnn/"
    "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
    "known_hash": "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "fname": "tinyshakespeare.txt",
}
# Tests and tables are no prose of programmers; what is installed on top is not everywhere.
LEFT_OUT = {
    "test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data",
    "__pycache__", "ensurepip", "lib-dynload",
}  # fmt: skip


class Texts(NamedTuple):
    train: str
    valid: str
    test: str
    split: str  # how they came about


class Data(NamedTuple):
    train: np.ndarray  # (N,) int32
    valid: np.ndarray
    test: np.ndarray
    vocabulary: Vocabulary
    fingerprint: str  # of the three and the vocabulary
    report: list[str]  # lines to show


def load(config: Config, vocabulary: Vocabulary | None = None) -> Data:
    """The config's texts as numbers, of that vocabulary or that of the training text.

    Raises:
      ValueError: if a file is missing, empty or not UTF-8.
    """
    texts = read(config)
    split = words if config.level == "word" else str
    train, valid, test = map(split, texts[:3])
    train = train[: config.train_limit or None]
    valid, test = (t[: config.held_out_limit or None] for t in (valid, test))
    for name, symbols in (("train", train), ("valid", valid), ("test", test)):
        if len(symbols) < 2:
            raise ValueError(f"the {name} text has {len(symbols)} symbols: at least 2 are needed")
    size = config.vocabulary if config.level == "word" else None
    vocabulary = vocabulary or Vocabulary.build(train, size)
    encoded = [vocabulary.encode(s) for s in (train, valid, test)]
    names = np.frombuffer("\0".join(vocabulary.symbols).encode(), np.uint8)
    unit = {"char": "characters", "word": "words"}[config.level]
    report = [
        f"text: {texts.split}",
        f"{unit}: {len(train):,} train, {len(valid):,} valid, {len(test):,} test; "
        f"{len(vocabulary):,} different ones, <unk> among them",
    ]
    for name, tokens in zip(("train", "valid", "test"), encoded, strict=True):
        if unknown := int((tokens == 0).sum()):
            report.append(
                f"{name}: {unknown:,} {unit} ({unknown / len(tokens):.2%}) count as <unk>"
            )
    return Data(*encoded, vocabulary, fingerprint(names, *encoded), report)


def read(config: Config) -> Texts:
    """The three texts that a config names."""
    if config.train:
        train = read_file(config.train, "--train")
        if config.valid:
            held_out = read_file(config.valid, "--valid"), read_file(config.test, "--test")
            return Texts(train, *held_out, f"{config.train}, {config.valid}, {config.test}")
        ends = [len(train) * 18 // 20, len(train) * 19 // 20]
        cut = [train[: ends[0]], train[ends[0] : ends[1]], train[ends[1] :]]
        return Texts(*cut, f"{config.train}: first 90 % train, next 5 % valid, last 5 % test")
    if config.corpus == "tinyshakespeare":
        text = read_file(fetch(TINY_SHAKESPEARE, config.cache), "tinyshakespeare")
        split = len(text) * 9 // 10
        how = "tiny Shakespeare: first 90 % train; the last 10 % is both valid and test"
        return Texts(text[:split], text[split:], text[split:], how)
    return standard_library()


def read_file(path: str, argument: str) -> str:
    """The text of a UTF-8 file, line ends as `\\n`."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{argument}: can't read {path}: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{argument}: {path} is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}"
        ) from error
    if not text.strip():
        raise ValueError(f"{argument}: {path} is empty")
    return text


def fetch(source: dict[str, str], cache: str) -> str:
    """The path of a corpus in the cache folder, downloaded and its hash checked."""
    pooch = needed("pooch", "experiments")
    folder = Path(cache) if cache else Path(pooch.os_cache("jaxlstm"))
    try:
        return pooch.retrieve(path=folder, progressbar=False, **source)
    except Exception as error:
        raise ValueError(
            f"can't download {source['url']} ({error}); place it by hand as "
            f"{folder / source['fname']} ({source['known_hash']})"
        ) from error


def standard_library() -> Texts:
    """The running interpreter's own library: every tenth file held out, valid and test by turns.

    Files are taken in the order of a hash of their names, which mixes the packages and is the
    same everywhere.
    """
    root = Path(sysconfig.get_path("stdlib"))
    names = [p.relative_to(root) for p in root.rglob("*.py")]
    names = [n for n in names if not LEFT_OUT & set(n.parts) and (root / n).stat().st_size > 200]
    names.sort(key=lambda n: (zlib.crc32(n.as_posix().encode()), n.as_posix()))
    parts: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for number, name in enumerate(names):
        text = (root / name).read_text(encoding="utf-8", errors="replace")
        parts[{0: "valid", 10: "test"}.get(number % 20, "train")].append(text)
    if not all(parts.values()):
        raise ValueError(f"no source files of the standard library under {root}: use --train")
    version = sysconfig.get_python_version()
    how = f"Python {version}'s standard library, {len(names)} files, every tenth held out"
    return Texts(*("\n".join(parts[p]) for p in ("train", "valid", "test")), how)
