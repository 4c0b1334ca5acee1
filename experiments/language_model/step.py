"""One step of training, and the reading of a whole text."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.language_model import model
from experiments.language_model.config import Config
from experiments.language_model.state import State
from jaxlstm.train.averaging import averaged
from jaxlstm.train.guard import choose, judge


class Seen(NamedTuple):
    """What a step has to say; numbers, the same on every device."""

    nats: Array  # () of a symbol
    norm: Array  # () of the gradient, before it is clipped
    verdict: Array  # () of the guard
    bad: Array  # () steps so far
    wish: Array  # () the greatest of what the processes wish to do


SPECS = State(P(), P(), P("data"), P(), P(), P(), P(), P())
OVER_BATCH = P(None, "data")


def train_step(config: Config, rule: optax.GradientTransformation, mesh: Mesh):
    """A jitted `(state, step, tokens, targets, wish, fresh) -> (state, Seen)`.

    The loss is the mean over streams and over time; for `sgd` alone the sum over time, as Zaremba
    et al. have it. A step that the guard rejects leaves params, optimizer and carry.
    """
    steps_in_loss = config.window if config.optimizer == "sgd" else 1

    def shard(state, step, tokens, targets, wish, fresh):
        key = jax.random.fold_in(state.key, step)
        key = jax.random.fold_in(key, jax.lax.axis_index("data"))
        key, of_restart = jax.random.split(key)
        anew = fresh | jax.random.bernoulli(of_restart, config.restart, (tokens.shape[1], 1))

        def loss(params):
            carry = model.restarted(config, params, state.carry, anew[:, 0])
            after, nats, smooth = model.losses(config, params, carry, tokens, targets, key)
            return smooth.mean() * steps_in_loss, (nats.mean(), after)

        if state.scale is None:
            (_, (nats, carry)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
            gradient, scale, fits = jax.lax.pmean(gradient, "data"), None, True
        else:
            differentiate = state.scale.value_and_grad(loss, has_aux=True, axis_name="data")
            scale, fits, (_, (nats, carry)), gradient = differentiate(state.params)
        nats = jax.lax.pmean(nats, "data")
        updates, after = rule.update(gradient, state.optimizer, state.params)
        updates = optax.tree.scale(state.plateau.scale, updates)
        norm = optax.tree.norm(gradient)
        # A carry that is not finite would only be told by the losses that follow.
        of_carry = jax.lax.psum(optax.tree.norm(carry, squared=True), "data")
        norms = norm, optax.tree.norm(updates), of_carry
        excused = ~fits & (state.scale.scale > 1) if scale else False
        verdict, guard = judge(state.guard, nats, *norms, spike=config.spike, excused=excused)
        params = optax.apply_updates(state.params, updates)
        average = state.average and averaged(state.average, params)
        made = State(params, after, carry, state.key, guard, scale, state.plateau, average)
        made = choose(verdict, made, state)._replace(guard=guard, scale=scale)
        return made, Seen(nats, norm, verdict, guard.bad, jax.lax.pmax(wish[0], "data"))

    sharded = jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(SPECS, P(), OVER_BATCH, OVER_BATCH, P("data"), P()),
        out_specs=(SPECS, P()),
        check_vma=False,
    )
    return jax.jit(sharded, donate_argnums=0)


def batch_shardings(mesh: Mesh) -> tuple[NamedSharding, ...]:
    """Of tokens, targets and wishes."""
    return tuple(NamedSharding(mesh, spec) for spec in (OVER_BATCH, OVER_BATCH, P("data")))


def state_shardings(mesh: Mesh, state: State) -> State:
    """Of each array of a state."""
    of = lambda spec, part: jax.tree.map(lambda _: NamedSharding(mesh, spec), part)
    return State(*map(of, SPECS, state))


def evaluator(config: Config, check: Callable[[], Any], window: int = 256):
    """`(params, tokens) -> nats a symbol` over a whole text, from one stream of it.

    `check` is called before each window and may raise, to end it.
    """

    @jax.jit
    def run(params, carry, tokens, targets, count):
        carry, nats, _ = model.losses(config, params, carry, tokens, targets, None)
        return carry, jnp.where(jnp.arange(window)[:, None] < count, nats, 0).sum()

    def evaluate(params, tokens):
        carry = model.initial_carry(config, params, 1)
        last = len(tokens) - 1
        sums = []
        for start in range(0, last, window):
            check()
            count = min(window, last - start)
            span = np.zeros((window + 1, 1), np.int32)
            span[: count + 1, 0] = tokens[start : start + count + 1]
            carry, nats = run(params, carry, span[:-1], span[1:], count)
            sums.append(nats)
            if len(sums) > 2:
                sums[-3].block_until_ready()  # a wish to stop is not to wait for the whole text
        return math.fsum(map(float, sums)) / last

    return evaluate
