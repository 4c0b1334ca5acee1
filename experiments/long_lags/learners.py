"""How networks learn: as in 1997, and as today."""

import functools

import jax
import jax.numpy as jnp
import optax

import jaxlstm as jl
from experiments.long_lags import blocks, online
from experiments.long_lags.population import Learner, last_error
from experiments.long_lags.sequences import Sequence, dense
from jaxlstm import initializers
from jaxlstm.gates import sigmoid


def squared_error(outputs: jax.Array, sequence: Sequence) -> jax.Array:
    """Half the sum of squared differences, as in the paper."""
    return 0.5 * (jnp.square(outputs - sequence.targets).sum(-1) * sequence.weights).sum()


def of_1997(net: blocks.Net, rate: float) -> Learner:
    """Memory cell blocks; gradient descent after each sequence, by the truncated gradient."""
    outputs = functools.partial(blocks.outputs, net)

    def learn(params, state, sequences):
        sequence = jax.tree.map(lambda a: a[0], sequences)

        def loss(params):
            found = outputs(params, sequence.xs, sequence.times)
            return squared_error(found, sequence), last_error(found, sequence)

        gradient, error = jax.grad(loss, has_aux=True)(params)
        return _descended(params, gradient, rate), state, error[None]

    return Learner(lambda key: blocks.init(key, net), outputs, lambda params: (), learn)


def of_1997_online(net: blocks.Net, rate: float) -> Learner:
    """The same, but that the weights change after every step, of which each has a target."""

    def learn(params, state, sequences):
        sequence = jax.tree.map(lambda a: a[0], sequences)
        xs = dense(sequence.xs, net.inputs)

        def step(before, s):
            params, memory, _ = before
            x, target, weight = s
            memory, y, gradient = online.step(net, params, memory, x, target)
            return (_descended(params, gradient, rate * weight), memory, y), None

        first = params, online.begin(net), jnp.zeros(net.outputs)
        steps = xs, sequence.targets, sequence.weights
        (params, _, y), _ = jax.lax.scan(step, first, steps)
        return params, state, last_error(y[None], sequence)[None]

    outputs = functools.partial(blocks.outputs, net)
    return Learner(lambda key: blocks.init(key, net), outputs, lambda params: (), learn)


def _descended(params, gradient, rate):
    return jax.tree.map(lambda p, g: p - rate * g, params, gradient)


def modern(net: blocks.Net, units: int, rate: float, batch: int, longest: int) -> Learner:
    """An LSTM with forget gates, its outputs as the network's; the whole gradient and Adam.

    Its biases remember up to the `longest` sequence (Tallec and Ollivier 2018): where all forget
    biases are 1, none of ten networks learns to add 100 steps apart within 512,000 sequences.
    """
    cell, (inputs, outputs) = jl.lstm(units), net[:2]
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def init(key):
        of_cell, of_bias, of_output = jax.random.split(key, 3)
        rnn = cell.init(of_cell, jnp.zeros(inputs))
        rnn = rnn._replace(b=initializers.chrono(of_bias, rnn.b, longest, forget=1, input=0))
        w = jax.random.normal(of_output, (units, outputs)) / units**0.5
        return rnn, w, jnp.zeros(outputs)

    def at_times(params, xs, times):
        rnn, w, b = params
        if jnp.issubdtype(xs.dtype, jnp.integer):  # one of up to 1,004 inputs is 1
            rows = rnn.w_x.reshape(inputs, 4 * units)
            xs, rnn = rows[xs], rnn._replace(w_x=jnp.eye(4 * units).reshape(-1, 4, units))
        a = jl.scan(cell, rnn, xs)[1][times] @ w + b
        return sigmoid(a) if net.logistic else a

    def learn(params, state, sequences):
        def loss(params):
            found = jax.vmap(at_times, (None, 0, 0))(params, sequences.xs, sequences.times)
            losses = jax.vmap(squared_error)(found, sequences)
            return losses.mean(), jax.vmap(last_error)(found, sequences)

        gradient, errors = jax.grad(loss, has_aux=True)(params)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, change), state, errors

    return Learner(init, at_times, optimizer.init, learn, batch)
