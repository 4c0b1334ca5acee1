"""Our `RNN` of Flax Linen, against `nn.RNN` and `scan`, of our cells and of Flax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import jaxlstm as jl
from jaxlstm.interop.linen import RNN, RecurrentCell, from_variables, to_variables
from tests import matrices
from tests.interop.linen_inputs import (
    KEY,
    X64,
    B,
    H,
    T,
    close,
    drawn,
    equal,
    first,
    inputs,
    random,
)


@pytest.mark.parametrize(
    ("time_major", "options"),
    [
        (False, {}),
        (True, dict(reverse=True)),
        (False, dict(reverse=True)),
        (True, dict(reverse=True, keep_order=True)),
    ],
)
def test_lengths(time_major, options):
    """Flax's own where it is right: outputs before the length, carries of lengths above 0."""
    cell, xs, lengths = jl.lstm(H), inputs(), jnp.array([T, 0, 4])
    params = drawn(cell, xs[0])
    variables = {"params": {"cell": to_variables(params)}}
    xs = first(xs) if time_major else xs
    options = dict(options, seq_lengths=lengths, return_carry=True, time_major=time_major)
    expected, zs = linen.RNN(RecurrentCell(cell, **X64)).apply(variables, xs, **options)
    carry, ys = RNN(RecurrentCell(cell, **X64)).apply(variables, xs, **options)
    some = lambda carry: jax.tree.map(lambda a: a[jnp.array([0, 2])], carry)
    close(some(carry), some(expected))
    assert not any(a[1].any() for a in carry)
    before = jnp.arange(T) < lengths[:, None]
    ys, zs = (first(a) if time_major else a for a in (ys, zs))
    close(ys, jnp.where(before[..., None], zs, 0))


def test_what_padding_holds_reaches_no_value_and_no_gradient():
    xs, lengths = inputs(), jnp.array([T, 0, 4])
    padded = jnp.where((jnp.arange(T) < lengths[:, None])[..., None], xs, jnp.nan)
    both = linen.Bidirectional(*(RNN(RecurrentCell(jl.gru(H), **X64)) for _ in range(2)))
    variables = drawn(both, xs)
    loss = lambda v, xs: (both.apply(v, xs, seq_lengths=lengths) ** 2).sum()
    equal(jax.grad(loss)(variables, padded), jax.grad(loss)(variables, jnp.nan_to_num(padded)))
    assert jnp.isfinite(jax.grad(loss, 1)(variables, padded)).all()


def test_both_directions():
    xs, lengths = inputs(), jnp.array([T, 0, 4])
    both = jl.bidirectional(jl.gru(H), jl.lstm(2))
    params = drawn(both, xs[:, 0])
    rnns = RNN(RecurrentCell(jl.gru(H), **X64)), RNN(RecurrentCell(jl.lstm(2), **X64))
    weights = {"forward_rnn": params.forward, "backward_rnn": params.backward}
    variables = {"params": {name: {"cell": to_variables(p)} for name, p in weights.items()}}
    options = dict(seq_lengths=lengths, return_carry=True, init_key=KEY)
    carry, ys = linen.Bidirectional(*rnns).apply(variables, xs, **options)
    expected = both.apply(params, first(xs), lengths=lengths)
    close((carry, first(ys)), expected)
    stock = (linen.RNN(rnn.cell) for rnn in rnns)
    close(
        linen.Bidirectional(*stock).apply(variables, xs),
        both.apply(params, first(xs))[1].swapaxes(0, 1),
    )


def test_the_whole_sequence_goes_to_the_fast_implementation():
    cell, xs = jl.lstm(H), inputs()
    ours, stock = (kind(RecurrentCell(cell, **X64)) for kind in (RNN, linen.RNN))
    variables = drawn(ours, xs)
    params = from_variables(cell, xs[:, 0], variables["params"]["cell"])
    assert jl.explain(cell, params, first(xs))["blocked"] is None
    swept = lambda run: "gated_sweep" in str(jax.make_jaxpr(run)(variables, xs))
    assert [swept(stock.apply), swept(ours.apply)] == [False, True]


@pytest.mark.parametrize("time_major", [False, True])
def test_inputs_may_be_pytrees(time_major):
    times = jnp.cumsum(jnp.ones((B, T)), 1)
    cell, xs = jl.phased_lstm(H), jl.PhasedLSTMInput(inputs(), times)
    model = RNN(RecurrentCell(cell, **X64), time_major=time_major)
    given = first(xs) if time_major else xs
    variables = drawn(model, given)
    step = jax.tree.map(lambda a: a[:, 0], xs)
    params = from_variables(cell, step, variables["params"]["cell"])
    ys = model.apply(variables, given)
    close(ys if time_major else first(ys), jl.scan(cell, params, first(xs))[1])


def test_a_carry_of_the_cell_s_own_type_may_hold_more():
    """As an attention's with a mask; its outputs are a pytree too."""
    attention = jl.attention(jl.gru(H), "general", memory=6, size=H)
    xs, memory = inputs(), random(np.zeros((2, B, 6)))
    params = drawn(attention, xs[:, 0])
    carry = jl.attend(attention, params, xs[:, 0], memory, lengths=[2, 1, 2])
    given = {"params": {"cell": to_variables(params)}}
    model = RNN(RecurrentCell(attention, **X64))
    ys = model.apply(given, xs, initial_carry=carry)
    close(first(ys), jl.scan(attention, params, first(xs), carry)[1])
    stock = linen.RNN(model.cell).apply(given, xs, initial_carry=carry)
    close(stock, ys)


FLAX = {
    "OptimizedLSTMCell": linen.OptimizedLSTMCell(H, **X64),
    "GRUCell": linen.GRUCell(H, **X64),
    "ConvLSTMCell": linen.ConvLSTMCell(2, (3, 2), **X64),
}


@pytest.mark.parametrize("name", matrices.few(FLAX, long=["GRUCell"]))
def test_flax_s_own_cells_run_too(name):
    """With Flax's variables, from the same key, and its carries."""
    xs = inputs(4, 3) if name == "ConvLSTMCell" else inputs()
    stock, ours = (kind(FLAX[name], return_carry=True) for kind in (linen.RNN, RNN))
    variables = jax.jit(ours.init)(KEY, xs)
    equal(variables, jax.jit(stock.init)(KEY, xs))
    variables = random(variables, 3)

    @jax.jit
    def both(variables, xs):
        found = []
        for model in (ours, stock):
            out, pull = jax.vjp(model.apply, variables, xs)
            found.append((out, pull(jax.tree.map(jnp.cos, out))))
        return found

    actual, expected = both(variables, xs)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    close(actual, expected)
    swept = str(jax.make_jaxpr(ours.apply)(variables, xs))
    assert ("gated_sweep" in swept) == (name != "ConvLSTMCell")


def test_flax_s_own_cells_within_a_model_and_with_options_that_no_cell_has():
    class Model(linen.Module):
        rnn: type

        @linen.compact
        def __call__(self, xs):
            return linen.remat(self.rnn)(linen.GRUCell(H, **X64))(xs)

    xs = inputs()
    variables = drawn(Model(RNN), xs)
    stock = drawn(Model(linen.RNN), xs)
    assert jax.tree.structure(variables) == jax.tree.structure(stock)
    close(Model(RNN).apply(variables, xs), Model(linen.RNN).apply(variables, xs))
    odd = RNN(linen.GRUCell(H, gate_fn=jax.nn.relu, **X64))
    with pytest.raises(ValueError, match=r"GRUCell's gate_fn: expected its default"):
        odd.init(KEY, xs)
    with pytest.raises(ValueError, match=r"params 'ir/kernel': expected shape \(any, 5\), got"):
        RNN(linen.GRUCell(H, **X64)).apply({"params": {"cell": {"ir": {"kernel": xs}}}}, xs)


held = RecurrentCell(jl.lstm(H))
deep = RecurrentCell(jl.stack(jl.lstm(H), jl.gru(3)))
two = jnp.ones((B, H)), jnp.ones((B, H))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            RNN(RecurrentCell(jl.convlstm(2, (1, 1)))),
            {},
            r"inputs: expected axes of batch, time an",
        ),
        (
            RNN(held),
            {"initial_carry": two[0]},
            r"carry: expected 2 arrays, as lstm\(5\) has, got 1",
        ),
        (linen.RNN(held), {"initial_carry": two[0]}, r"carry: expected 2 arrays, as lstm\(5\) has"),
        (RNN(deep), {"initial_carry": two}, r"carry: expected 3 arrays, as stack\(.* has, got 2"),
        (linen.RNN(deep), {"initial_carry": two}, r"carry: expected 3 arrays, as stack\(.* got 2"),
        (RNN(held), {"initial_carry": (jnp.ones(H), jnp.ones(H))}, r"carry: expected one of lstm"),
        (RNN(held), {"seq_lengths": jnp.array([T])}, r"lengths: expected the batch axes of xs"),
    ],
)
def test_what_an_rnn_can_not_run_raises(model, options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda xs: model.init(KEY, xs, **options), inputs())


class Mine(linen.GRUCell):
    pass


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        (jl.gru(H), {}, r"cell: expected a RecurrentCell or one of Flax's LSTMCell, .*, got Cell"),
        (Mine(H), {}, r"cell: expected a RecurrentCell or one of .* got Mine"),
        (held, dict(variable_axes={"params": 0}), r"variable_axes: expected its default \{\}"),
        (held, dict(variable_broadcast=False), r"variable_broadcast: expected its default 'par"),
    ],
)
def test_what_no_rnn_is_of_raises_when_it_is_made(cell, options, message):
    with pytest.raises(ValueError, match=message):
        RNN(cell, **options)
