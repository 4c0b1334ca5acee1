"""The cells of xLSTM (Beck et al. 2024, arXiv:2405.04517) in NumPy: one step of one sequence."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def log_of(forget, a):
    return {"sigmoid": np.log(sigmoid(a)), "exp": a}[forget]


def slstm(params, carry, x, forget="sigmoid"):
    """Section 2.2, stabilised, head by head; where n is not positive nothing is stored."""
    (heads, size), new = params.w_h.shape[:2], []
    for head in range(heads):
        units = slice(head * size, (head + 1) * size)
        c, n, m, h = (part[units] for part in carry)
        w, r, b = params.w_x[..., units], params.w_h[head], params.b[:, units]
        i, f, z, o = (x @ w[:, gate] + h @ r[:, gate] + b[gate] for gate in range(4))
        f, n = log_of(forget, f), np.where(n > 0, n, 0)
        stabiliser = np.where(n > 0, np.maximum(f + m, i), i)
        i, f = np.exp(i - stabiliser), np.exp(f + m - stabiliser)
        c = f * c + i * np.tanh(z)
        n = f * n + i
        new.append((c, n, stabiliser, sigmoid(o) * c / n))
    carry = type(carry)(*map(np.concatenate, zip(*new, strict=True)))
    return carry, carry.h


def mlstm(params, carry, x, forget="sigmoid"):
    """Section 2.3, stabilised, head by head, C (values, keys) as there."""
    new, outputs = [], []
    for head in range(carry.m.size):
        w_q, w_k = (params.w_qk[:, n, head] for n in range(2))
        w_v, w_o = (params.w_vo[:, n, head] for n in range(2))
        w_i, w_f = (params.w_if[:, n, head] for n in range(2))
        c, n, m = carry.c[head].T, carry.n[head], carry.m[head]
        q = x @ w_q + params.b_qk[0, head]
        k = x @ w_k / np.sqrt(n.size) + params.b_qk[1, head]
        v = x @ w_v + params.b_vo[0, head]
        o = sigmoid(x @ w_o + params.b_vo[1, head])
        i = x @ w_i + params.b_if[0, head]
        f = log_of(forget, x @ w_f + params.b_if[1, head])
        stabiliser = max(f + m, i)
        i, f = np.exp(i - stabiliser), np.exp(f + m - stabiliser)
        c = f * c + i * np.outer(v, k)
        n = f * n + i * k
        outputs.append(o * (c @ q) / max(abs(n @ q), np.exp(-stabiliser)))
        new.append((c.T, n, stabiliser))
    return type(carry)(*map(np.stack, zip(*new, strict=True))), np.concatenate(outputs)
