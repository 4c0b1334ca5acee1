"""The network: an embedding, recurrent layers with dropout between them, and a softmax."""

import importlib
from collections.abc import Callable
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


def factory(name: str) -> Callable[[int], jl.Cell]:
    """What makes cells of a number of units: one of `CELLS`, or the NAME of "MODULE:NAME".

    Raises:
      ValueError: if there is no such thing.
    """
    if name in CELLS:
        return CELLS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"--cell: expected {', '.join(CELLS)} or MODULE:NAME, got {name}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--cell: {name} can't be imported: {error}") from error


def cells(config: Config) -> tuple[jl.Cell, ...]:
    return (factory(config.cell)(config.hidden),) * config.layers


def check(config: Config) -> None:
    """Raises ValueError if the cell is none, or can't be a layer of the network."""
    cell = factory(config.cell)(config.hidden)
    if not isinstance(cell, jl.Cell):
        raise ValueError(f"--cell: {config.cell} makes no Cell of jaxlstm, but {cell!r}")

    def step(key):
        x = jnp.zeros((2, config.embedding))
        params = cell.init(key, x)
        return cell.step(params, cell.initial_carry(params, x), x)[1]

    y = jax.eval_shape(step, jax.random.key(0))
    if getattr(y, "shape", None) != (2, config.hidden):
        raise ValueError(f"--cell: {config.cell} puts out {y}, not {config.hidden} numbers a step")


def widths(config: Config) -> list[int]:
    """Of the inputs of each layer."""
    return [config.embedding] + [config.hidden] * (config.layers - 1)


def init(config: Config, key: Array, symbols: int) -> ModelParams:
    keys = jax.random.split(key, config.layers + 2)
    of_step = [jax.ShapeDtypeStruct((n,), jnp.result_type(float)) for n in widths(config)]
    layers = (c.init(k, x) for c, k, x in zip(cells(config), keys[2:], of_step, strict=True))
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
    params = in_precision(config, params)
    like = lambda width: jax.ShapeDtypeStruct((batch, width), params.embedding.dtype)
    each = zip(cells(config), params.layers, widths(config), strict=True)
    return tuple(c.initial_carry(p, like(width)) for c, p, width in each)


def restarted(config: Config, params: ModelParams, carry: Any, anew: Array) -> Any:
    """The carry, with the initial one where a stream begins anew, (B,) booleans."""
    initial = initial_carry(config, params, len(anew))
    of = lambda first, c: jnp.where(anew.reshape(-1, *[1] * (c.ndim - 1)), first, c)
    return jax.tree.map(of, initial, carry)


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
