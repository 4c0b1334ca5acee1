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


def ablation(name):
    """Greff et al. 2015, section III-B, one gate after another."""

    def step(params, carry, x):
        c, h, before = carry
        names = {"nig": "fgo", "nfg": "igo", "nog": "ifg", "cifg": "igo"}.get(name, "ifgo")
        a = {gate: dense(params, n, x, h) for n, gate in enumerate(names)}
        if name == "fgr":
            for n, gate in enumerate("ifo"):
                for m in range(3):
                    a[gate] = a[gate] + before[m] @ params.w_gates[m][:, n]
        eyes = [gate for gate in names if gate != "g"]
        p = {g: 0 if name == "np" else params.peephole[n] for n, g in enumerate(eyes)}
        i = 1.0 if name == "nig" else sigmoid(a["i"] + p["i"] * c)
        f = 1.0 if name == "nfg" else sigmoid(a["f"] + p["f"] * c) if "f" in a else 1 - i
        g = a["g"] if name == "niaf" else np.tanh(a["g"])
        c = f * c + i * g
        o = 1.0 if name == "nog" else sigmoid(a["o"] + p["o"] * c)
        h = o * (c if name == "noaf" else np.tanh(c))
        return carry._replace(c=c, h=h, gates=np.stack([i, f, o]) if name == "fgr" else None), h

    return step


def lstm_1997(params, carry, x):
    """Hochreiter and Schmidhuber 1997, section 4: s' = s + y_in g(net_c), y = y_out h(s')."""
    c, h = carry
    i, g, o = (dense(params, n, x, h) for n in range(3))
    c = c + sigmoid(i) * (4 / (1 + np.exp(-g)) - 2)
    h = sigmoid(o) * (2 / (1 + np.exp(-c)) - 1)
    return carry._replace(c=c, h=h), h


def lstm(params, carry, x, cell_clip=np.inf, gate_clip=np.inf):
    """Sak et al. 2014, eq. 1 to 7, the peepholes and the projection if there are any."""
    c, h = carry
    a = [x @ params.w_x[:, n] for n in range(4)]
    b = [h @ params.w_h[:, n] for n in range(4)]
    if params.norm is not None:  # Ba et al. 2016, eq. 20 to 22, over all gates together
        a = list(normalised(np.concatenate(a)).reshape(4, -1) * params.norm.x)
        b = list(normalised(np.concatenate(b)).reshape(4, -1) * params.norm.h)
    a = [v + w + bias for v, w, bias in zip(a, b, params.b, strict=True)]
    p = np.zeros((3, len(c))) if params.peephole is None else params.peephole
    bound = lambda v: np.maximum(np.minimum(v, gate_clip), -gate_clip)
    i = sigmoid(bound(a[0] + p[0] * c))
    f = sigmoid(bound(a[1] + p[1] * c))
    c = f * c + i * np.tanh(bound(a[2]))
    c = np.maximum(np.minimum(c, cell_clip), -cell_clip)
    o = sigmoid(bound(a[3] + p[2] * c))
    shown = c
    if params.norm is not None:
        shown = normalised(c) * params.norm.c + params.norm.b_c
    h = o * np.tanh(shown)
    h = h if params.projection is None else h @ params.projection
    return carry._replace(c=c, h=h), h


def normalised(v):
    return (v - v.mean()) / np.sqrt(((v - v.mean()) ** 2).mean() + 1e-5)


def gru(params, carry, x):
    """Cho et al. 2014, version 1 of arXiv:1406.1078, with PyTorch's roles of z and 1 - z."""
    (h,) = carry
    r = sigmoid(dense(params, 0, x, h))
    z = sigmoid(dense(params, 1, x, h))
    inside = h @ params.w_h[:, 2] + params.b_n
    n = np.tanh(x @ params.w_x[:, 2] + params.b[2] + r * inside)
    h = (1 - z) * n + z * h
    return carry._replace(h=h), h


def gru_reset_before(params, carry, x):
    """Cho et al. 2014, eq. 5 to 8, with PyTorch's roles of z and 1 - z."""
    (h,) = carry
    r = sigmoid(dense(params, 0, x, h))
    z = sigmoid(dense(params, 1, x, h))
    n = np.tanh(dense(params, 2, x, r * h))
    h = (1 - z) * n + z * h
    return carry._replace(h=h), h


def elman(params, carry, x):
    """Elman 1990."""
    h = np.tanh(x @ params.w_x + carry.h @ params.w_h + params.b)
    return carry._replace(h=h), h


def indrnn(params, carry, x):
    """Li et al. 2018, eq. 2."""
    h = np.maximum(x @ params.w_x + params.w_h * carry.h + params.b, 0)
    return carry._replace(h=h), h


def sru(params, carry, x):
    """Lei et al. 2018, eq. 1 to 4, with α = √3."""
    (c,) = carry
    a_f, candidate, a_r = (x @ params.w_x[:, n] for n in range(3))
    f = sigmoid(a_f + params.v[0] * c + params.b[0])
    r = sigmoid(a_r + params.v[1] * c + params.b[1])
    c = f * c + (1 - f) * candidate
    x = x if params.w_skip is None else x @ params.w_skip
    return carry._replace(c=c), r * c + (1 - r) * np.sqrt(3) * x


def mingru(params, carry, x):
    """Feng et al. 2024, section 3.1."""
    z, g = (x @ params.w_x[:, n] + params.b[n] for n in range(2))
    h = (1 - sigmoid(z)) * carry.h + sigmoid(z) * g
    return carry._replace(h=h), h


def minlstm(params, carry, x):
    """Feng et al. 2024, section 3.2."""
    i, f, g = (x @ params.w_x[:, n] + params.b[n] for n in range(3))
    i, f = sigmoid(i), sigmoid(f)
    h = f / (f + i) * carry.h + i / (f + i) * g
    return carry._replace(h=h), h
