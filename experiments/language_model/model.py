"""The network: an embedding, recurrent layers with dropout between them, and a softmax."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

import jaxlstm as jl
from experiments.language_model.config import Config

CELLS = {
    "lstm": jl.lstm,
    "peephole": lambda hidden: jl.lstm(hidden, peephole=True),
    "gru": jl.gru,
    "elman": jl.elman,
}


class ModelParams(NamedTuple):
    embedding: Array  # (V, E)
    layers: tuple[Any, ...]  # of each cell
    w_out: Array  # (H, V)
    b_out: Array  # (V,)


def cells(config: Config) -> tuple[jl.Cell, ...]:
    return (CELLS[config.cell](config.hidden),) * config.layers


def init(config: Config, key: Array, symbols: int) -> ModelParams:
    keys = jax.random.split(key, config.layers + 2)
    sizes = [config.embedding] + [config.hidden] * config.layers
    of_step = [jax.ShapeDtypeStruct((size,), jnp.result_type(float)) for size in sizes]
    layers = (c.init(k, x) for c, k, x in zip(cells(config), keys[2:], of_step, strict=False))
    params = ModelParams(
        jax.random.normal(keys[0], (symbols, config.embedding)) * config.embedding**-0.5,
        tuple(layers),
        jax.nn.initializers.glorot_uniform()(keys[1], (config.hidden, symbols)),
        jnp.zeros(symbols),
    )
    if not config.uniform:
        return params
    leaves, tree = jax.tree.flatten(params)
    draw = lambda k, a: jax.random.uniform(k, a.shape, a.dtype, -config.uniform, config.uniform)
    return tree.unflatten(map(draw, jax.random.split(key, len(leaves)), leaves))


def initial_carry(config: Config, params: ModelParams, batch: int) -> tuple[Any, ...]:
    carries = []
    for c, p in zip(cells(config), in_precision(config, params).layers, strict=True):
        x = jax.ShapeDtypeStruct((batch, p.w_x.shape[0]), p.w_x.dtype)
        carries.append(c.initial_carry(p, x))
    return tuple(carries)


def in_precision(config: Config, params: ModelParams) -> ModelParams:
    """The params as the network computes with them; those of float32 stay what they are."""
    if config.precision == "float32":
        return params
    return jax.tree.map(lambda a: a.astype(config.precision), params)


def logits(
    config: Config, params: ModelParams, carry: Any, tokens: Array, key: Array | None = None
) -> tuple[Any, Array]:
    """The carry after the tokens, and logits (T, B, V) for the token after each.

    Args:
      config: the model's.
      params: of the model.
      carry: of each layer, (B, H).
      tokens: (T, B) integers.
      key: for dropout; None for none.
    """
    params = in_precision(config, params)
    rate, weight_rate = (config.dropout, config.weight_drop) if key is not None else (0.0, 0.0)
    keys = jax.random.split(key, 2 * config.layers + 1) if key is not None else None
    dropped = lambda n, h: dropout(keys[n], rate, h) if rate else h
    h = params.embedding[tokens]
    carries = []
    for n, (c, p) in enumerate(zip(cells(config), params.layers, strict=True)):
        p = jl.weight_drop(p, keys[-1 - n], weight_rate) if weight_rate else p
        h = h if n == 0 and not config.embedding_dropout else dropped(n, h)
        after, h = jl.scan(c, p, h, carry[n])
        carries.append(after)
    scores = dropped(config.layers, h) @ params.w_out + params.b_out
    return tuple(carries), scores.astype(jnp.promote_types(scores.dtype, jnp.float32))


def dropout(key: Array, rate: float, h: Array) -> Array:
    """Zeros a part of h and scales the rest; 16 random bits for each entry suffice."""
    most = round(rate * 65536)
    kept = jax.random.bits(key, h.shape, jnp.uint16) >= most
    return jnp.where(kept, h * (65536 / (65536 - most)), 0)


def losses(
    config: Config,
    params: ModelParams,
    carry: Any,
    tokens: Array,
    targets: Array,
    key: Array | None,
) -> tuple[Any, Array, Array]:
    """The carry, nats (T, B) for each target, and what training minimises: these with smoothing.

    With a part ε of label smoothing a target is 1 - ε of itself and ε of all symbols alike
    (Szegedy et al. 2015, arXiv:1512.00567, section 7; Pereyra et al. 2017, arXiv:1701.06548, for
    language models).
    """
    carry, scores = logits(config, params, carry, tokens, key)
    nats = optax.softmax_cross_entropy_with_integer_labels(scores, targets)
    alike = jax.nn.logsumexp(scores, axis=-1) - scores.mean(-1)
    return carry, nats, nats + config.label_smoothing * (alike - nats)
