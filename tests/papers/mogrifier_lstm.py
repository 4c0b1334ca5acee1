"""The Mogrifier LSTM as its paper prints it, in NumPy: one step of one sequence."""

import numpy as np

from tests.papers.gated import dense, sigmoid


def mogrifier_lstm(params, carry, x):
    """Melis et al. 2020, eq. 1 and 2, and the LSTM of section 2."""
    c, h = carry
    for i, (left, right) in enumerate(params.rounds, start=1):
        matrix = left if right is None else left @ right
        if i % 2 == 1:
            x = 2 * sigmoid(matrix.T @ h) * x
        else:
            h = 2 * sigmoid(matrix.T @ x) * h
    i, f, j, o = (dense(params, n, x, h) for n in range(4))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(j)
    h = sigmoid(o) * np.tanh(c)
    return carry._replace(c=c, h=h), h
