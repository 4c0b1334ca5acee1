"""Attention as its papers print it, in NumPy: one step of one sequence, position by position."""

import numpy as np

import jaxlstm as jl


def bahdanau(bare):
    """Bahdanau et al. 2015, section 3.1 and appendix A.1.2; `bare` is the step of the cell inside.

    s_i = f(s_{i-1}, y_{i-1}, c_i), where c_i is read with s_{i-1}.
    """

    def step(params, carry, x):
        memory, s = carry.memory.value, carry.carry.h
        weights, context = read(memory, lambda n: additive(params, s, memory.values[n]))
        inner, y = bare(params.bare, carry.carry, np.concatenate([x, context]))
        return carry._replace(carry=inner), (y, weights, context)

    return step


def luong(kind, bare, feeding=True):
    """Luong et al. 2015, eq. 5, 7 and 8, and with `feeding` section 3.3."""

    def step(params, carry, x):
        memory = carry.memory.value
        inner, h = bare(params.bare, carry.carry, np.concatenate([x, carry.fed]) if feeding else x)
        score = {
            "dot": lambda n: h @ memory.values[n],
            "general": lambda n: h @ (params.w_k.T @ memory.values[n]),
            "concat": lambda n: additive(params, h, memory.values[n]),
            "location": lambda n: params.w_q[:, n] @ h,
        }[kind]
        weights, context = read(memory, score)
        h_tilde = np.tanh(params.w_c.T @ np.concatenate([context, h]))
        fed = h_tilde if feeding else None
        return carry._replace(carry=inner, fed=fed), (h_tilde, weights, context)

    return step


def additive(params, s, h):
    return params.v @ np.tanh(params.w_q.T @ s + params.w_k.T @ h)


def read(memory, score):
    """Weights and context; of a memory with nothing to see, zeros."""
    seen = [n for n in range(len(memory.values)) if memory.mask[n]]
    e = {n: np.exp(score(n)) for n in seen}
    weights = np.array([e[n] / sum(e.values()) if n in e else 0.0 for n in range(len(memory.mask))])
    context = np.zeros(memory.values.shape[1])
    for n in seen:
        context = context + weights[n] * memory.values[n]
    return weights, context


@jl.cell
def reading(bare: jl.Cell, features: int, positions: int = 4) -> jl.Cell:
    """An attention cell whose initial carry holds a memory, another one for each sequence.

    The third's has no position to be seen, and behind each one's length stands NaN.
    """

    def initial_carry(params, x, key=None):
        batch = x.shape[:-1]
        place = np.arange(np.prod(batch, dtype=int)).reshape(batch)
        lengths = (positions - 1 + place) % (positions + 1)  # 3, 4, 0, 1, ... of 4
        memory = np.sin(np.arange(1.0, 1 + positions * lengths.size * features))
        memory = memory.reshape(positions, *batch, features)
        memory[np.arange(positions).reshape(-1, *(1,) * lengths.ndim) >= lengths] = np.nan
        return jl.attend(bare, params, x, memory, lengths=lengths, key=key)

    return bare._replace(initial_carry=initial_carry)
