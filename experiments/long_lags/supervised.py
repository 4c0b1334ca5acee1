"""Networks trained in batches by any Optax optimizer, several seeds in one program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from experiments.long_lags.keeping import Keeping


class Trained(NamedTuple):
    """Networks amid their training; every leaf has an axis of seeds in front."""

    key: jax.Array
    params: Any
    optimizer: Any


def fit(
    init: Callable[[jax.Array], Any],
    loss: Callable[[Any, Any, jax.Array], jax.Array],
    draw: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    *,
    seeds: int,
    updates: int,
    every: int,
    look: Callable[[int, Trained, jax.Array], bool | None],
    data: tuple[Any, ...] = (),
    in_turn: bool = False,
    keeping: Keeping | None = None,
) -> Trained:
    """Trains a network from each seed.

    Args:
      init: key -> params.
      loss: (params, batch, key) -> (), the key being for noise such as dropout.
      draw: (key, *data) -> a batch.
      optimizer: of each network.
      seeds: how many networks.
      updates: how many steps of the optimizer.
      every: after how many of them `look` is called, and at the end.
      look: (updates so far, the networks, the mean loss of each since the last look (seeds,)) ->
        whether that is enough.
      data: what batches are drawn from, the same for all networks: large arrays belong here, as
        XLA takes those that `draw` closes over for constants, and is long about it.
      in_turn: trains one network after another, not all side by side. That is faster for wide
        ones, as a product of matrices is slow in a batch of them.
      keeping: has the networks kept after each look, and goes on with those that are.

    Returns:
      The networks as they were last.
    """

    def begin(key):
        key, of_params = jax.random.split(key)
        params = init(of_params)
        return Trained(key, params, optimizer.init(params))

    def one(trained, data):
        key, of_batch, of_noise = jax.random.split(trained.key, 3)
        batch = draw(of_batch, *data)
        value, gradient = jax.value_and_grad(loss)(trained.params, batch, of_noise)
        change, state = optimizer.update(gradient, trained.optimizer, trained.params)
        return Trained(key, optax.apply_updates(trained.params, change), state), value

    def some(trained, data, count):
        trained, losses = jax.lax.scan(lambda t, _: one(t, data), trained, None, count)
        return trained, losses.mean()

    def all_of_them(trained, data, count):
        each = lambda trained: some(trained, data, count)
        return jax.lax.map(each, trained) if in_turn else jax.vmap(each)(trained)

    run = jax.jit(all_of_them, static_argnums=2, donate_argnums=0)
    trained = jax.jit(jax.vmap(begin))(jax.random.split(jax.random.key(0), seeds))
    done, ended = 0, False
    if keeping:
        done, ended, trained = keeping.restore(trained)
    while done < updates and not ended:
        count = min(every, updates - done)
        trained, losses = run(trained, data, count)
        done += count
        ended = bool(look(done, trained, losses))
        if keeping:
            keeping.save(done, ended, trained)
    return trained
