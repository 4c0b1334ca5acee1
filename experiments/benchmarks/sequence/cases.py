"""What is measured: rows of cases, their weights and inputs, and the operations they need."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

SHAPES = [  # B, T, D, H
    (32, 128, 128, 256),
    (64, 128, 512, 512),
    (20, 35, 200, 200),
    (1, 1024, 64, 128),
    (16, 2048, 32, 64),
    (128, 64, 64, 128),
    (1, 1, 128, 256),
]
FORWARD, GRADIENT, COMPILE = "forward", "forward + gradient", "compile"
LAYERS = 3
SIDE, KERNEL = 16, 3  # pixels of an image, and of what a convolution sees, each way


class Row(NamedTuple):
    says: str
    shapes: list[tuple[int, ...]]
    whats: tuple[str, ...] = (FORWARD, GRADIENT)
    apart: bool = False  # in new processes, whose memory no case before has touched


ROWS = {
    "lstm": Row("LSTM", SHAPES),
    "step": Row("one step of an LSTM, from a carry", SHAPES[-1:], (FORWARD,)),
    "gru": Row("GRU, its reset after the product", [SHAPES[0], SHAPES[4]]),
    "elman": Row("plain tanh network", [SHAPES[0], SHAPES[4]]),
    "janet": Row("JANET, the MGU without a reset gate", [SHAPES[0], SHAPES[4]]),
    "convlstm": Row(f"convolutional LSTM of {SIDE} x {SIDE} images", [(8, 20, 16, 32)]),
    "peephole": Row("LSTM with peepholes", SHAPES[:1]),
    "layer_norm": Row("LSTM with layer normalisation", SHAPES[:1]),
    "lengths": Row("LSTM, a third of the steps valid", [SHAPES[0], SHAPES[5]]),
    "bidirectional": Row("LSTM in both directions", SHAPES[:1]),
    "layers": Row(f"{LAYERS} layers of LSTM", SHAPES[:1]),
    "memory": Row("LSTM, a long sequence", [(16, 4096, 64, 128)], (GRADIENT,), True),
    "compile": Row(
        "LSTM, the time to compile", [(16, 128, 64, 128), (16, 2048, 64, 128)], (COMPILE,)
    ),
}
GATES = {"gru": 3, "elman": 1, "janet": 2}  # of cells that have not four
QUICK = {"lstm": [(8, 32, 16, 32), (20, 35, 64, 64)]}


class Case(NamedTuple):
    row: str
    shape: tuple[int, ...]  # B, T, D, H
    what: str

    @property
    def gradient(self) -> bool:
        return self.what != FORWARD

    def __str__(self) -> str:
        return f"{ROWS[self.row].says}, {self.what}, (B, T, D, H) = {tuple(self.shape)}"


class Given(NamedTuple):
    """The layer of ours whose numbers all contenders are to give, and what it is given."""

    layer: Any
    params: Any
    xs: np.ndarray  # (T, B, D), zero at steps that are not valid
    lengths: np.ndarray | None  # (B,)
    carry: Any  # before a single step; None for sequences


def shape_of(text: str) -> tuple[int, ...]:
    """Four positive sizes from "B,T,D,H".

    Raises:
      ValueError: if they are not.
    """
    sizes = text.split(",")
    if len(sizes) != 4 or not all(s.strip().isdecimal() and int(s) > 0 for s in sizes):
        raise ValueError(f"shapes: expected four positive sizes B,T,D,H, got {text!r}")
    return tuple(map(int, sizes))


def select(
    rows: list[str] | None, shapes: list[tuple[int, ...]] | None, quick: bool = False
) -> list[Case]:
    """The cases of these rows, all for None, at these shapes, a row's own for None.

    Raises:
      ValueError: if there is no such row.
    """
    own = QUICK if quick else {name: row.shapes for name, row in ROWS.items()}
    rows = list(own) if rows is None else rows
    unknown = [name for name in rows if name not in ROWS]
    if unknown:
        raise ValueError(f"rows: expected some of {', '.join(ROWS)}, got {', '.join(unknown)}")
    cases = []
    for name in rows:
        at = shapes or own.get(name) or ROWS[name].shapes
        at = [(b, 1, d, h) for b, _, d, h in at] if name == "step" else at
        cases += [Case(name, shape, what) for shape in at for what in ROWS[name].whats]
    return cases


def layer_of(case: Case, around: Callable[[Any], Any] = lambda cell: cell) -> Any:
    """The layer of ours that a case is about, with something around its cells."""
    import jaxlstm as jl

    hidden = case.shape[3]
    if case.row == "bidirectional":
        return jl.bidirectional(around(jl.lstm(hidden)), around(jl.lstm(hidden)))
    if case.row == "janet":
        return around(jl.janet(hidden, beta=0.0))  # as Flax's MGUCell has it
    if case.row in GATES:
        return around(getattr(jl, case.row)(hidden))
    if case.row == "convlstm":
        return around(jl.convlstm(hidden, (KERNEL, KERNEL)))
    if case.row == "layers":
        return around(jl.stack(*[jl.lstm(hidden)] * LAYERS))
    options = {case.row: True} if case.row in ("peephole", "layer_norm") else {}
    return around(jl.lstm(hidden, **options))


def inputs(case: Case) -> Given:
    """The same in every process: params as drawn and a little beside, random inputs."""
    import jax

    batch, time, features, _ = case.shape
    layer, draw = layer_of(case), np.random.default_rng(0)
    normal = lambda *shape: draw.standard_normal(shape, np.float32)
    xs = normal(time, batch, *space(case), features)
    params = layer.init(jax.random.key(1), xs[0])
    params = jax.tree.map(lambda a: a + 0.1 * normal(*a.shape) / len(a) ** 0.5, params)
    lengths = carry = None
    if case.row == "lengths":
        lengths = draw.permutation(lengths_of(case))
        xs[np.arange(time)[:, None] >= lengths] = 0
    if case.row == "step":
        carry = jax.tree.map(lambda a: normal(*a.shape), layer.initial_carry(params, xs[0]))
    return Given(layer, params, xs, lengths, carry)


def space(case: Case) -> tuple[int, ...]:
    """The axes of an input before its features."""
    return (SIDE, SIDE) if case.row == "convlstm" else ()


def lengths_of(case: Case) -> np.ndarray:
    """T u², u uniform: a third of T in the mean, and nearly T at most."""
    batch, time, _, _ = case.shape
    return np.ceil(time * ((np.arange(batch) + 0.5) / batch) ** 2).astype(np.int32)


def operations(case: Case) -> int | None:
    """Multiplications and additions of the products; None if none are timed.

    2 G H (D + H) for each valid step forward, G gates, and three times that with the gradient; of
    a convolution as many at each pixel for each one that it sees.
    """
    if case.what == COMPILE:
        return None
    batch, time, features, hidden = case.shape
    steps = int(lengths_of(case).sum()) if case.row == "lengths" else batch * time
    steps *= (SIDE * KERNEL) ** 2 if case.row == "convlstm" else 1
    gates = GATES.get(case.row, 4)
    rows = features + hidden
    rows += 2 * hidden * (LAYERS - 1) if case.row == "layers" else 0
    rows *= 2 if case.row == "bidirectional" else 1
    return 2 * steps * gates * hidden * rows * (3 if case.gradient else 1)
