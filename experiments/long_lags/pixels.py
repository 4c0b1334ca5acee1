"""Digits read pixel by pixel: sequential and permuted MNIST, 784 steps of one pixel.

    python -m experiments.long_lags smnist --data FOLDER
    python -m experiments.long_lags pmnist --data FOLDER

Le et al. 2015, arXiv:1504.00941: the pixels row by row, or all of them in one random order that is
the same for every image; the class after the last. One layer of 100 units: an LSTM (Arjovsky et al.
2016, arXiv:1511.06464; Cooijmans et al. 2016, arXiv:1603.09025), a plain tanh network, and one of
relu that begins with the identity. Adam, the gradient's norm at most 1, batches of 64, a rate that
rises for 100 updates and falls as a cosine.

Where we differ: Arjovsky's LSTM has 128 units; optimizer, rates and clipping are ours, and so is
what saves epochs (seen in the first 300 updates): input weights of the LSTM from U(-1, 1), as there
is one input; biases that remember up to 100 steps where the pixels are in their order, and a forget
bias of 1 where they are not.

Result: the LSTM 98.35 ± 0.14 % in order and 89.28 ± 0.13 % permuted, of three; the tanh network
61.1 and 83.1, the relu network 82.7 and 48.9, of one. More of it: docs/long_lags.md.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxlstm as jl
from experiments.language_model.corpus import fetch
from experiments.long_lags.keeping import Keeping
from experiments.long_lags.results import Found, Options, spread
from experiments.long_lags.supervised import Trained, fit
from jaxlstm import initializers
from jaxlstm.data.position import fingerprint

SOURCE = {
    "url": "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    "known_hash": "sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    "fname": "mnist.npz",
}
PIXELS, CLASSES, HELD_OUT = 784, 10, 5_000
UNITS, BATCH, SPAN, WARMUP = 100, 64, 100, 100
EVERY = 430  # updates between looks: about half an epoch
CHUNK = 250  # sequences that are examined at once
TITLES = {"smnist": "sequential MNIST", "pmnist": "permuted MNIST"}
ACCEPT = {"smnist": 0.98, "pmnist": 0.88}
PAPER = {
    "smnist": {"lstm": "98.2 % (Arjovsky), 98.9 % (Cooijmans)", "irnn": "97 % (Le)"},
    "pmnist": {"lstm": "88 % (Arjovsky), 90.2 % (Cooijmans)", "irnn": "82 % (Le)"},
}


class Learning(NamedTuple):
    rate: float  # of Adam, at its highest
    epochs: int


LEARNING = {
    "lstm": Learning(3e-3, 20),
    "elman": Learning(2e-4, 10),
    "irnn": Learning(1e-4, 10),
}
FORMS = tuple(LEARNING)
CELLS = {
    "lstm": jl.lstm(UNITS),
    "elman": jl.elman(UNITS),
    "irnn": jl.elman(UNITS, activation="relu"),
}


class Digits(NamedTuple):
    images: np.ndarray  # (N, 784) uint8
    labels: np.ndarray  # (N,) int32


def load(folder: str = "") -> tuple[Digits, Digits]:
    """MNIST's images for training and for the test, of a folder with mnist.npz, or downloaded.

    Raises:
      ValueError: if the file is not there, or has no such images.
    """
    path = Path(folder) / "mnist.npz" if folder else Path(fetch(SOURCE, ""))
    if not path.is_file():
        raise ValueError(f"--data: there is no mnist.npz in {folder}")
    try:
        with np.load(path) as found:
            parts = [(found[f"x_{part}"], found[f"y_{part}"]) for part in ("train", "test")]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"--data: {path} is not MNIST as Keras has it: {error}") from error
    for x, y in parts:
        if x.shape[1:] != (28, 28) or x.dtype != np.uint8 or y.shape != x.shape[:1]:
            got = f"{x.dtype} {x.shape} and {y.shape}"
            raise ValueError(f"--data: {path}: expected uint8 (N, 28, 28) and (N,), got {got}")
    train, test = (Digits(x.reshape(-1, PIXELS), y.astype(np.int32)) for x, y in parts)
    return train, test


def init(form: str, ordered: bool, key: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """The params of a network: of the cell, and w (H, 10) and b (10,) of the outputs."""
    of_cell, of_input, of_bias, of_output = jax.random.split(key, 4)
    rnn = CELLS[form].init(of_cell, jnp.zeros(1))
    if form == "lstm":
        rnn = rnn._replace(w_x=initializers.uniform(of_input, rnn.w_x, 1.0))
        if ordered:
            b = initializers.chrono(of_bias, rnn.b, SPAN, forget=1, input=0)
            rnn = rnn._replace(b=b)
    if form == "irnn":
        w_x = 0.001 * jax.random.normal(of_input, rnn.w_x.shape)
        rnn = rnn._replace(w_x=w_x, w_h=initializers.identity(rnn.w_h))
    w = jax.random.normal(of_output, (UNITS, CLASSES)) / UNITS**0.5
    return rnn, w, jnp.zeros(CLASSES)


def logits(form: str, params: Any, images: jax.Array) -> jax.Array:
    """(B, 10), of images (B, 784) from 0 to 255."""
    rnn, w, b = params
    xs = images.T[..., None].astype(w.dtype) / 255
    return jl.scan(CELLS[form], rnn, xs)[0].h @ w + b


def accuracy(form: str, params: Any, digits: Digits) -> jax.Array:
    """The share of right answers of one network, ()."""
    chunks = jax.tree.map(lambda a: a.reshape(-1, CHUNK, *a.shape[1:]), digits)
    right = lambda part: (logits(form, params, part.images).argmax(-1) == part.labels).mean()
    return jax.lax.map(right, chunks).mean()


def run(name: str, form: str, options: Options) -> Found:
    """One order of the pixels, by one network."""
    ordered, learning, seeds = name == "smnist", LEARNING[form], options.seeds or 1
    order = np.arange(PIXELS) if ordered else np.random.default_rng(0).permutation(PIXELS)
    both = load(options.data)
    train, test = (Digits(x[:, order], y) for x, y in both)
    of_valid = Digits(*(a[-HELD_OUT:] for a in train))
    if options.quick:
        of_valid, test = (Digits(*(a[:CHUNK] for a in part)) for part in (of_valid, test))
    train = Digits(*(a[:-HELD_OUT] for a in train))
    updates = learning.epochs * len(train.labels) // BATCH
    updates = options.budget or (5 if options.quick else updates)
    began = time.monotonic()
    identity = {"task": name, "form": form, "seeds": seeds, "updates": updates}
    keeping = Keeping(options.keep, identity | {"data": fingerprint(*train)})
    examine = jax.jit(
        lambda params, digits: jax.lax.map(lambda p: accuracy(form, p, digits), params)
    )

    def draw(key, train):
        rows = jax.random.randint(key, (BATCH,), 0, len(train.labels))
        return jax.tree.map(lambda a: a[rows], train)

    def loss(params, batch, key):
        found = logits(form, params, batch.images)
        return optax.softmax_cross_entropy_with_integer_labels(found, batch.labels).mean()

    def look(done: int, trained: Trained, losses: jax.Array) -> None:
        right = np.asarray(examine(trained.params, of_valid))
        keeping.log.append({"updates": done, "loss": losses.tolist(), "valid": right.tolist()})
        said = f"loss {losses.mean():.3f}, valid {right.mean():.1%}"
        print(f"{done:,} updates: {said}, {time.monotonic() - began:,.0f} s", flush=True)

    rate = optax.warmup_cosine_decay_schedule(0.0, learning.rate, min(WARMUP, updates), updates + 1)
    with keeping:
        trained = fit(
            lambda key: init(form, ordered, key),
            loss,
            draw,
            optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
            seeds=seeds,
            updates=updates,
            every=min(EVERY, updates),
            look=look,
            data=(train,),
            in_turn=True,
            keeping=keeping,
        )
    right = np.asarray(examine(trained.params, test))
    weights = sum(a[0].size for a in jax.tree.leaves(trained.params))
    return Found(
        title=f"{TITLES[name]}, {PIXELS} steps",
        source=f"Arjovsky et al., Cooijmans et al. 2016, Le et al. 2015; {weights:,} weights",
        paper=PAPER[name].get(form, ""),
        accept=f"at least {ACCEPT[name]:.0%}",
        ours=f"{spread(right, '{:.2%}')} after {updates:,} updates of {BATCH}",
        floor=_floor(*both),
        passed=bool(right.mean() >= ACCEPT[name]) if form == "lstm" else None,
        seeds=seeds,
        numbers={"test": right.tolist(), "curve": keeping.log},
        before=keeping.before,
    )


def _floor(train: Digits, test: Digits) -> str:
    """The commonest class, and the class whose mean image is nearest."""
    common = np.bincount(train.labels).argmax()
    means = np.stack([train.images[train.labels == n].mean(0) for n in range(CLASSES)])
    distances = (means**2).sum(1) - test.images @ (2 * means.T)
    nearest = (distances.argmin(1) == test.labels).mean()
    return f"one class: {(test.labels == common).mean():.1%}; the nearest mean: {nearest:.1%}"
