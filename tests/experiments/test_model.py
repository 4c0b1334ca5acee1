import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.language_model import config, model

KEY = jax.random.key(0)
SMALL = config.Config(hidden=5, embedding=3, dropout=0.0)


def test_smoothed_labels_are_a_target_spread_over_all_symbols():
    smoothed = dataclasses.replace(SMALL, label_smoothing=0.2)
    params = model.init(SMALL, KEY, symbols=7)
    carry = model.initial_carry(SMALL, params, batch=2)
    tokens, targets = jax.random.randint(KEY, (2, 4, 2), 0, 7)
    _, scores = model.logits(SMALL, params, carry, tokens)
    _, nats, minimised = model.losses(smoothed, params, carry, tokens, targets, None)
    spread = optax.smooth_labels(jax.nn.one_hot(targets, 7), 0.2)
    expected = optax.softmax_cross_entropy(scores, spread)
    np.testing.assert_allclose(minimised, expected, rtol=1e-5)
    picked = jnp.take_along_axis(jax.nn.log_softmax(scores), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(nats, -picked, rtol=1e-5)
    np.testing.assert_array_equal(*model.losses(SMALL, params, carry, tokens, targets, None)[1:])
