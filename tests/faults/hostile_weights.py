"""Weight files made to harm: safetensors whose header says what it must not."""

import functools
import json
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlstm as jl
from jaxlstm.interop import safetensors
from tests.faults.forger import ABSENT, deep, replaced, values

Change = Callable[["Weights"], None]
CALLS = (  # of every factory, with each of its numbers in turn
    *("lstm({})", "lstm(4, projection={})", "lstm(4, cell_clip={})", "lstm_1997({})", "gru({})"),
    *("lstm_ablation({}, 'nig')", "gru_reset_before({})", "elman({})", "mgu({})", "indrnn({})"),
    *("janet({})", "mingru({})", "minlstm({})", "sru({})", "slstm({})", "slstm(4, heads={})"),
    *("mlstm({})", "mlstm(4, heads={})", "mlstm(4, key_size={})", "hyper_lstm({})"),
    *("hyper_lstm(4, hyper={})", "hyper_lstm(4, embedding={})", "mogrifier_lstm({})"),
    *("mogrifier_lstm(4, rounds={})", "mogrifier_lstm(4, rank={})", "gru_d({})"),
    *("time_aware_lstm({})", "phased_lstm({})", "convlstm({}, (3,))", "convlstm(2, ({},))"),
    *("attention(gru(4), 'dot', memory={}, size=3)", "variational_dropout(lstm(4), {})"),
    *("attention(gru(4), 'location', memory=4, size=3, positions={})", "data_parallel(gru(4), {})"),
    *("zoneout(lstm(4), c={})", "recurrent_dropout(gru(4), {})", "learned_start(gru({}))"),
    *("residual(gru({}))", "pyramid(gru({}))", "bidirectional(gru(4), gru({}))", "stack(gru({}))"),
)
NUMBERS = (
    *("1000000000000", "9223372036854775808", "1" + "0" * 30, "1" + "0" * 4290, "0", "-1"),
    *("True", "None", "1.5", "1e400", "inf", "-inf", "'a'", "(1, 2)", "gru(3)", "1j", "...", "{}"),
)
CODE = (
    *("__import__('os').mkdir({!r})", "eval({!r})", "lstm(__import__('os').mkdir({!r}))"),
    *("lstm(4).__class__({!r})", "(lambda: {!r})()", "lstm(*[{!r}])", "lstm(**{{'hidden': {!r}}})"),
    *("lstm(hidden=[x for x in {!r}])", "f'{{lstm({!r})}}'", "lstm((x := {!r}))", "exit({!r})"),
    *(
        "jaxlstm.lstm({!r})",
        "getattr(lstm, {!r})",
        "stack.__wrapped__(lstm(4), {!r})",
        "cell({!r})",
    ),
    *("np.load({!r}, allow_pickle=True)", "os.mkdir({!r})", "open({!r}, 'w')", "lstm(open({!r}))"),
)
LONG = {
    "many layers": "stack(" + "gru(3), " * 3000 + "gru(3))",
    "layers in layers": "stack(" * 5000 + "gru(3)" + ")" * 5000,
    "50 in each other": "residual(" * 50 + "gru(3)" + ")" * 50,
    "200 in each other": "residual(" * 200 + "gru(3)" + ")" * 200,
    "twice and twice": functools.reduce(lambda t, _: f"stack({t}, {t})", range(12), "gru(3)"),
    "parentheses": "(" * 100_000 + "1" + ")" * 100_000,
    "signs": "lstm(" + "-" * 100_000 + "1)",
    "sums": "lstm(" + "1+" * 100_000 + "1)",
    "dots": "lstm" + ".x" * 100_000 + "()",
    "digits": "lstm(" + "9" * 100_000 + ")",
    "rounds": "mogrifier_lstm(3, rounds=100000)",
    "a long name": "l" * 5_000_000 + "(3)",
    "a long list": "lstm([" + "1," * 5_000_000 + "])",
    "nul": "lstm(4\0)",
    "lines": "lstm(\n" * 1000 + ")" * 1000,
    "nothing": "",
}
DTYPES = (
    *("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F6_E2M3", "F4", "I16", "U16", "F16"),
    *("BF16", "I32", "U32", "F64", "I64", "U64", "C64", "F32 ", "O", "", None, 1, "float32"),
)


class Weights:
    """A sound file, and what an attacker makes of it.

    Args:
      path: of the file, which is there.
      outside: a folder that nobody may touch.
      rng: of what is random.
    """

    def __init__(self, path: Path, outside: Path, rng: random.Random):
        self.path, self.outside, self.rng = path, outside, rng
        self.raw = path.read_bytes()
        (length,) = struct.unpack("<Q", self.raw[:8])
        self.header = json.loads(self.raw[8 : 8 + length])
        self.data = self.raw[8 + length :]

    def write(self, header: Any) -> None:
        self.write_text(json.dumps(header).encode())

    def write_text(self, text: bytes) -> None:
        self.path.write_bytes(struct.pack("<Q", len(text)) + text + self.data)

    def put(self, keys: tuple, value: Any) -> None:
        self.header = replaced(self.header, keys, value)
        self.write(self.header)

    def note(self, name: str, text: Any) -> None:
        self.put(("__metadata__", name), text)


def sound(path: Path) -> None:
    layer, x = _layer(), jax.ShapeDtypeStruct((3,), jnp.float32)
    params = layer.init(jax.random.key(0), x)
    others = {"embed": jnp.arange(6.0).reshape(2, 3)}
    safetensors.save(path, layer, params, x, others=others, notes={"data": "ours"})


def _layer() -> Any:
    return jl.stack(jl.lstm(4, peephole=True), jl.gru(3))


def check(saved: safetensors.Saved) -> str:
    """What was loaded fits together: the params are those that the cell draws; '' if not."""
    leaves = jax.tree.leaves(saved.params)
    concrete = all(isinstance(a, jax.Array | np.ndarray) for a in leaves)
    texts = all(isinstance(n, str) for both in saved.notes.items() for n in both)
    return "loaded whole" if concrete and leaves and texts else ""


def cases(outside: Path) -> dict[str, Change]:
    """Each case by name; the same ones, in the same order, whenever it is asked."""
    made = str(outside / "made")
    found: dict[str, Change] = {"weights: as they were": lambda w: None}

    def note(kind, name, text):
        found[f"weights: {name} {kind}"] = lambda w: w.note(name, text)

    for number, code in enumerate(CODE):
        note(number, "cell", code.format(made))
        note(f"{number} alone", "notes", code.format(made))
    for kind, text in LONG.items():
        note(kind, "cell", text)
    for call in CALLS:
        note(call, "cell", call.format(NUMBERS[0]))
    one = '{"shape": [3], "dtype": "float32"}'
    for kind, text in {
        "deep": deep(100_000), "deep entries": '{"entries": {"a": ' * 3000 + one + "}}" * 3000,
        "huge": '{"shape": [9999999999999], "dtype": "float32"}',
        "object": one.replace("float32", "O"),
        "2^70": '{"shape": [1180591620717411303424], "dtype": "float32"}', "digits": "1" * 100_000,
        "zero": '{"shape": [0], "dtype": "float32"}', "commas": one.replace("float32", ","),
        "a dtype of lists": '{"shape": [3], "dtype": [["a", "<f4"]]}', "null": "null", "of": "{}",
        "a type": '{"type": "GRUDInput", "fields": []}', "os": '{"type": "os", "fields": ["x"]}',
        "long": '{"shape": [' + "1," * 3_000_000 + '1], "dtype": "float32"}', "text": '"shape"',
        "lists": "[" + "[]," * 5_000_000 + "[]]", "nan": '{"shape": [NaN], "dtype": "float32"}',
    }.items():  # fmt: skip
        note(kind, "x", text)
    for kind, text in {
        "deep": deep(100_000), "deeper than repr": deep(900), "null": "null", "digits": "1" * 9999,
        "lists": "[" + "[]," * 5_000_000 + "[]]", "numbers": '{"a": 1}',
        "deep text": '{"a": ' + deep(400) + "}",
    }.items():  # fmt: skip
        note(kind, "notes", text)
    for value in ("2", "", 1, None, deep(10)):
        note(f"is {str(value)[:20]}", "jaxlstm_format", value)
    note("is absent", "jaxlstm_format", ABSENT)
    entry = ("cell.0.w_x",)
    for dtype in DTYPES:
        found[f"weights: dtype {dtype}"] = lambda w, d=dtype: w.put((*entry, "dtype"), d)
        found[f"weights: another's dtype {dtype}"] = lambda w, d=dtype: w.put(("embed", "dtype"), d)
    for shape in ([2**62, 2**62], [-3, 4, 4], [0], [3.0, 4, 4], [True], [[3]], None, [2**64], [48]):
        found[f"weights: shape {shape}"] = lambda w, s=shape: w.put((*entry, "shape"), s)
    for offsets in ([0, 2**62], [-8, 8], [8, 0], [0, 0], [0], None, [0, 1.5], [2**64, 2**64 + 8]):
        found[f"weights: offsets {offsets}"] = lambda w, o=offsets: w.put(
            (*entry, "data_offsets"), o
        )
    for name in (
        "../../made",
        made,
        "cell.../x",
        "",
        "\0",
        "cell.",
        "__metadata__x",
        "x" * 100_000,
    ):
        found[f"weights: name {name[:20]!r}"] = lambda w, n=name: w.put((n,), w.header["embed"])
        found[f"weights: renamed {name[:20]!r}"] = lambda w, n=name: w.write(
            {n if k == "embed" else k: v for k, v in w.header.items()}
        )
    for kind, act in FILES.items():
        found[f"weights: {kind}"] = act
    return found


def _lengths(w: Weights, length: int) -> None:
    w.path.write_bytes(struct.pack("<Q", length) + w.raw[8:])


def _fifo(w: Weights) -> None:
    w.path.unlink()
    os.mkfifo(w.path)


def _pickle(w: Weights) -> None:
    w.path.write_bytes(pickle.dumps(Path(w.outside / "made")) + w.raw)


FILES: dict[str, Change] = {
    **{
        f"length {n}": functools.partial(_lengths, length=n)
        for n in (0, 1, 2**31, 2**63, 2**64 - 1)
    },
    "a fifo": _fifo,
    "a pickle": _pickle,
    "deep": lambda w: w.write_text(deep(1_000_000).encode()),
    "a deep entry": lambda w: w.write_text(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "twice": lambda w: w.write_text(json.dumps(w.header).encode()[:-1] + b', "embed": {}}'),
    "70 MB": lambda w: w.write_text(b'{"__metadata__": {"cell": "' + b"(" * 70_000_000 + b'"}}'),
    "120 MB": lambda w: w.write_text(b" " * 120_000_000),
    "a million names": lambda w: w.note(
        "notes", json.dumps({str(n): "" for n in range(1_000_000)})
    ),
    "empty": lambda w: w.path.write_bytes(b""),
    "a list": lambda w: w.write_text(b"[]"),
    "UTF-16": lambda w: w.write_text(json.dumps(w.header).encode("utf-16")),
    "more behind": lambda w: w.path.write_bytes(w.raw + b"\0"),
    "no metadata": lambda w: w.put(("__metadata__",), ABSENT),
}  # fmt: skip


def mutated(w: Weights) -> None:
    """Random changes: of the header's JSON, of a call's numbers, of bytes before the data."""
    kind = w.rng.choice(["header", "header", "call", "bytes"])
    if kind == "call":
        w.note("cell", w.rng.choice(CALLS).format(w.rng.choice(NUMBERS)))
    elif kind == "header":
        for _ in range(w.rng.randint(1, 3)):
            name = w.rng.choice(list(w.header))
            inner = w.header[name]
            keys = (name,)
            if isinstance(inner, dict) and inner:
                keys = (name, w.rng.choice(list(inner)))
            w.header = replaced(w.header, keys, w.rng.choice(list(values(w.outside).values())))
        w.write(w.header)
    else:
        raw = bytearray(w.raw)
        end = len(raw) - len(w.data)
        for _ in range(w.rng.randint(1, 4)):
            raw[w.rng.randrange(end)] = w.rng.randrange(256)
        w.path.write_bytes(raw)
