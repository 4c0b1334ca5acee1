"""The convolutional LSTM in NumPy: one step of one sequence, offset by offset."""

import itertools

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def convolve(x, w):
    """x (*S, C), w (*K, C, F): a sum over the kernel's offsets, with zeros around space."""
    *kernel, _, _ = w.shape
    around = [((size - 1) // 2, size // 2) for size in kernel]
    padded = np.pad(x, [*around, (0, 0)])
    total = 0
    for offset in itertools.product(*map(range, kernel)):
        part = tuple(slice(o, o + size) for o, size in zip(offset, x.shape[:-1], strict=True))
        total = total + padded[part] @ w[offset]
    return total


def convlstm(params, carry, x):
    """Shi et al. 2015, eq. 3."""
    c, h = carry
    p_i, p_f, p_o = np.zeros((3, 1)) if params.peephole is None else params.peephole

    def dense(gate):
        of_x, of_h = convolve(x, params.w_x[..., gate, :]), convolve(h, params.w_h[..., gate, :])
        return of_x + of_h + params.b[gate]

    i = sigmoid(dense(0) + p_i * c)
    f = sigmoid(dense(1) + p_f * c)
    c = f * c + i * np.tanh(dense(2))
    o = sigmoid(dense(3) + p_o * c)
    h = o * np.tanh(c)
    return carry._replace(c=c, h=h), h
