"""The HyperLSTM as its paper prints it, in NumPy: one step of one sequence, gate by gate."""

import numpy as np

from tests.papers.gated import sigmoid


def hyper_lstm(params, carry, x):
    """Ha et al. 2016, appendix A.2.2, eq. 10 to 13, with the new ĥ in eq. 11."""
    small = params.small
    c_hat, h_hat = lstm(
        [
            np.concatenate([carry.h, x]) @ small.w_x[:, y]
            + carry.small_h @ small.w_h[:, y]
            + small.b[y]
            for y in range(4)
        ],
        carry.small_c,
        small.norm,
    )
    gates = []
    for y in range(4):
        z_h = h_hat @ params.w_z[:, 0, y] + params.b_z[0, y]
        z_x = h_hat @ params.w_z[:, 1, y] + params.b_z[1, y]
        z_b = h_hat @ params.w_z[:, 2, y]
        # eq. 7: row by row of the matrices, which are transposed here
        w_h = params.w_h[:, y] * (z_h @ params.w_d[0, y])[None]
        w_x = params.w_x[:, y] * (z_x @ params.w_d[1, y])[None]
        gates.append(carry.h @ w_h + x @ w_x + z_b @ params.w_d[2, y] + params.b[y])
    c, h = lstm(gates, carry.c, params.norm)
    return carry._replace(c=c, h=h, small_c=c_hat, small_h=h_hat), h


def lstm(gates, c, norm):
    if norm is not None:
        gates = [layer_norm(a) * norm.gain[y] + norm.b[y] for y, a in enumerate(gates)]
    i, f, g, o = gates
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    shown = c if norm is None else layer_norm(c) * norm.gain_c + norm.b_c
    return c, sigmoid(o) * np.tanh(shown)


def layer_norm(a):
    return (a - a.mean()) / np.sqrt(((a - a.mean()) ** 2).mean() + 1e-5)
