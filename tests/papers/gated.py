"""Cells as their papers print them, in NumPy: one step of one sequence, gate by gate."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def dense(params, gate, x, h):
    """x W + h U + b of one gate."""
    return x @ params.w_x[:, gate] + h @ params.w_h[:, gate] + params.b[gate]


def janet(params, carry, x, beta=1.0):
    """van der Westhuizen and Lasenby 2018, eq. 13 to 16."""
    (h,) = carry
    s = dense(params, 0, x, h)
    g = np.tanh(dense(params, 1, x, h))
    h = sigmoid(s) * h + (1 - sigmoid(s - beta)) * g
    return carry._replace(h=h), h


def mgu(params, carry, x):
    """Zhou et al. 2016, table 1 (d)."""
    (h,) = carry
    f = sigmoid(dense(params, 0, x, h))
    n = np.tanh(dense(params, 1, x, f * h))
    h = (1 - f) * h + f * n
    return carry._replace(h=h), h
