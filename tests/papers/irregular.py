"""Cells for irregular and missing observations, in NumPy: one step of one sequence."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gru_d(params, carry, x):
    """Che et al. 2018, the section on GRU-D."""
    h, last = carry
    m, delta = x.observed, x.interval
    gamma_x = np.exp(-np.maximum(0, params.w_decay_x * delta + params.b_decay_x))
    gamma_h = np.exp(-np.maximum(0, delta @ params.w_decay_h + params.b_decay_h))
    imputed = gamma_x * last + (1 - gamma_x) * params.mean
    values = np.where(m == 0, 0, x.values)
    seen = m * values + (1 - m) * imputed
    faded = gamma_h * h

    def dense(gate, h):
        of_x = seen @ params.w_x[:, gate] + m @ params.w_m[:, gate]
        return of_x + h @ params.w_h[:, gate] + params.b[gate]

    r = sigmoid(dense(0, faded))
    z = sigmoid(dense(1, faded))
    n = np.tanh(dense(2, r * faded))
    h = (1 - z) * faded + z * n
    return carry._replace(h=h, last=m * values + (1 - m) * last), h


def dense(params, gate, x, h):
    """x W + h U + b of one gate."""
    return x @ params.w_x[:, gate] + h @ params.w_h[:, gate] + params.b[gate]


def lstm(params, c, h, x):
    """The new states of an LSTM with the forget gate."""
    i, f, o = (sigmoid(dense(params, gate, x, h)) for gate in (0, 1, 3))
    c = f * c + i * np.tanh(dense(params, 2, x, h))
    return c, o * np.tanh(c)


def time_aware_lstm(params, carry, x):
    """Baytas et al. 2017, the section on the time-aware LSTM."""
    c, h = carry
    short = np.tanh(c @ params.w_short + params.b_short)
    long = c - short
    discounted = short / np.log(np.e + np.maximum(x.interval, 0))
    c, h = lstm(params, long + discounted, h, x.values)
    return carry._replace(c=c, h=h), h


def phased_lstm(params, carry, x, leak=1e-3):
    """Neil, Pfeiffer and Liu 2016, the section on the model."""
    period = np.exp(params.log_period)
    k = np.empty_like(period)
    for n, ratio in enumerate(params.open_ratio):
        phase = np.mod(x.time - params.shift[n], period[n]) / period[n]
        if phase < ratio / 2:
            k[n] = 2 * phase / ratio
        elif phase < ratio:
            k[n] = 2 - 2 * phase / ratio
        else:
            k[n] = leak * phase
    c, h = lstm(params, carry.c, carry.h, x.values)
    c, h = k * c + (1 - k) * carry.c, k * h + (1 - k) * carry.h
    return carry._replace(c=c, h=h), h
