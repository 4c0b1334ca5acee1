"""All that a run is at one moment, but for its place in the text."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.training.dynamic_scale import DynamicScale

from experiments.language_model import model
from experiments.language_model.config import Config
from jaxlstm.train.averaging import Average, evaluated, initial_average
from jaxlstm.train.guard import Guard, initial_guard


class State(NamedTuple):
    params: model.ModelParams
    optimizer: Any
    carry: Any  # of each layer, (B, H), split over the devices
    key: jax.Array  # that every step's dropout is drawn from
    guard: Guard
    scale: Any  # of the loss, where the network is in float16; else None
    plateau: Any  # of the rate, by Optax's reduce_on_plateau
    average: Average | None  # of the params, for NT-ASGD


def rate(config: Config, steps: int, per_epoch: int) -> optax.Schedule:
    """The learning rate at each step, a window each."""
    if config.schedule == "linear":
        warmup = min(config.warmup, steps // 2)
        rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
        fall = optax.linear_schedule(config.learning_rate, 0.0, steps - warmup)
        return optax.join_schedules([rise, fall], [warmup])

    if config.schedule in ("constant", "plateau"):
        return optax.constant_schedule(config.learning_rate)

    def by_epochs(step):
        past = jnp.maximum(0, step // per_epoch + 1 - config.flat_epochs)
        return config.learning_rate * config.decay**past

    return by_epochs


def optimizer(config: Config, steps: int, per_epoch: int) -> optax.GradientTransformation:
    """Clipping by the norm of the whole gradient, then AdamW or plain gradient descent."""
    of_step = rate(config, steps, per_epoch)
    schedule = lambda update: of_step(update * config.accumulate)
    if config.optimizer in ("sgd", "ntasgd"):
        rule = optax.sgd(schedule)
    else:
        rule = optax.adamw(schedule, b2=config.beta2, weight_decay=config.weight_decay)
    rule = optax.chain(optax.clip_by_global_norm(config.clip), rule)
    if config.accumulate > 1:
        return optax.MultiSteps(rule, config.accumulate).gradient_transformation()
    return rule


def plateau(config: Config) -> optax.GradientTransformationExtraArgs:
    """Whose state has the factor of the rate; it is updated after each evaluation."""
    return optax.contrib.reduce_on_plateau(factor=config.decay, patience=config.plateau)


def initial_state(
    config: Config,
    rule: optax.GradientTransformation,
    symbols: int,
    params: model.ModelParams | None = None,
) -> State:
    """The state before the first step, of a vocabulary of that size; from params, if there are."""
    of_params, of_dropout = jax.random.split(jax.random.key(config.seed))
    params = model.init(config, of_params, symbols) if params is None else params
    return State(
        params,
        rule.init(params),
        model.initial_carry(config, params, config.batch),
        of_dropout,
        initial_guard(),
        _scale() if config.precision == "float16" else None,
        plateau(config).init(params),
        initial_average(params) if config.optimizer == "ntasgd" else None,
    )


def _scale() -> DynamicScale:
    return DynamicScale(fin_steps=jnp.zeros((), jnp.int32), scale=jnp.float32(2**16))


def best_params(state: State) -> model.ModelParams:
    """The params to evaluate: their mean, if there is one."""
    return state.params if state.average is None else evaluated(state.average, state.params)
