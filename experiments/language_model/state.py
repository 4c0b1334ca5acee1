"""All that a run is at one moment, but for its place in the text."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.language_model import model
from experiments.language_model.config import Config
from jaxlstm.train.guard import Guard, initial_guard


class State(NamedTuple):
    params: model.ModelParams
    optimizer: Any
    carry: Any  # of each layer, (B, H), split over the devices
    key: jax.Array  # that every step's dropout is drawn from
    guard: Guard


def rate(config: Config, steps: int, per_epoch: int) -> optax.Schedule:
    """The learning rate at each step."""
    if config.schedule == "linear":
        warmup = min(config.warmup, steps // 2)
        rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
        fall = optax.linear_schedule(config.learning_rate, 0.0, steps - warmup)
        return optax.join_schedules([rise, fall], [warmup])

    def by_epochs(step):
        past = jnp.maximum(0, step // per_epoch + 1 - config.flat_epochs)
        return config.learning_rate * config.decay**past

    return by_epochs


def optimizer(config: Config, steps: int, per_epoch: int) -> optax.GradientTransformation:
    """Clipping by the norm of the whole gradient, then AdamW or plain gradient descent."""
    schedule = rate(config, steps, per_epoch)
    if config.optimizer == "sgd":
        rule = optax.sgd(schedule)
    else:
        rule = optax.adamw(schedule, b2=config.beta2, weight_decay=config.weight_decay)
    return optax.chain(optax.clip_by_global_norm(config.clip), rule)


def initial_state(config: Config, rule: optax.GradientTransformation, symbols: int) -> State:
    """The state before the first step, of a vocabulary of that size."""
    of_params, of_dropout = jax.random.split(jax.random.key(config.seed))
    params = model.init(config, of_params, symbols)
    carry = model.initial_carry(config, params, config.batch)
    return State(params, rule.init(params), carry, of_dropout, initial_guard())
