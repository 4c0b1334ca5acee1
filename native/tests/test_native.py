"""The kernels by way of JAX's FFI, beside jaxlstm's own plain scan and its gradients."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl

native = pytest.importorskip(
    "jaxlstm_native", reason="jaxlstm_native is not installed: pip install ./native"
)

KEY = jax.random.key(0)
TOLERANCE = 2e-5  # of the largest value, float32: sums of some thousand terms in another order
SETS = ("avx512", "avx2", "portable")
SIZES = [(1, 1, 3, 5), (12, 9, 20, 33), (40, 16, 24, 48), (6, 5, 64, 130)]


def shape(*axes):
    return jax.ShapeDtypeStruct(axes, jnp.float32)


def like(*arrays):
    return tuple(shape(*a.shape) for a in arrays)


def lstm(lean, params, carry, x, valid):
    """The last c and all h of the native LSTM, with its own gradient."""
    T, B, _ = x.shape
    H = params.w_h.shape[0]
    none = jnp.zeros((0, H))
    peephole = none if params.peephole is None else params.peephole
    weights = (params.w_x, params.w_h, params.b, peephole)

    @jax.custom_vjp
    def run(weights, c, h, x):
        target = jax.ffi.ffi_call("jaxlstm_lstm_forward", (shape(B, H), shape(T, B, H)))
        return target(x, *weights, c, h, valid)

    def forward(weights, c, h, x):
        results = (shape(T, B, H), shape(T, B, H), shape(0 if lean else T, B, 4, H))
        target = jax.ffi.ffi_call("jaxlstm_lstm_forward_keep", results)
        cs, hs, gates = target(x, *weights, c, h, valid)
        return (cs[-1] if T else c, hs), (weights, c, h, x, cs, hs, gates)

    def backward(kept, g):
        weights, c, h, x, cs, hs, gates = kept
        w_x, w_h, b, peephole = weights
        g_c, g_hs = g
        g_rest = (g_hs, jnp.zeros((0, B, H)), g_c, jnp.zeros((B, H)))
        results = like(x, w_x, w_h, b, peephole, c, h)
        if lean:
            target = jax.ffi.ffi_call("jaxlstm_lstm_backward_lean", results)
            out = target(x, *weights, c, h, valid, cs, hs, *g_rest)
        else:
            target = jax.ffi.ffi_call("jaxlstm_lstm_backward", results)
            out = target(x, w_x, w_h, peephole, c, h, valid, cs, hs, gates, *g_rest)
        g_x, *g_weights, g_c, g_h = out
        return tuple(g_weights), g_c, g_h, g_x

    run.defvjp(forward, backward)
    return run(weights, carry.c, carry.h, x)


def gru(lean, params, carry, x, valid):
    T, B, _ = x.shape
    H = params.w_h.shape[0]

    @jax.custom_vjp
    def run(weights, h, x):
        return jax.ffi.ffi_call("jaxlstm_gru_forward", shape(T, B, H))(x, *weights, h, valid)

    def forward(weights, h, x):
        results = (shape(T, B, H), shape(0 if lean else T, B, 4, H))
        target = jax.ffi.ffi_call("jaxlstm_gru_forward_keep", results)
        hs, gates = target(x, *weights, h, valid)
        return hs, (weights, h, x, hs, gates)

    def backward(kept, g_hs):
        weights, h, x, hs, gates = kept
        w_x, w_h, b, b_n = weights
        g_h = jnp.zeros((B, H))
        results = like(x, w_x, w_h, b, b_n, h)
        if lean:
            target = jax.ffi.ffi_call("jaxlstm_gru_backward_lean", results)
            out = target(x, *weights, h, valid, hs, g_hs, g_h)
        else:
            target = jax.ffi.ffi_call("jaxlstm_gru_backward", results)
            out = target(x, w_x, w_h, h, valid, hs, gates, g_hs, g_h)
        g_x, *g_weights, g_h = out
        return tuple(g_weights), g_h, g_x

    run.defvjp(forward, backward)
    hs = run(tuple(params), carry.h, x)
    return (hs[-1] if T else carry.h), hs


def problem(cell, sizes, masked):
    T, B, D, _ = sizes
    keys = jax.random.split(KEY, 5)
    x = jax.random.normal(keys[0], (T, B, D))
    params = cell.init(keys[1], jax.ShapeDtypeStruct((B, D), jnp.float32))
    noise = jax.random.split(keys[2], len(jax.tree.leaves(params)))
    noise = jax.tree.unflatten(jax.tree.structure(params), list(noise))
    params = jax.tree.map(lambda a, k: a + 0.1 * jax.random.normal(k, a.shape), params, noise)
    carry = cell.initial_carry(params, jnp.zeros((B, D)))
    carry = jax.tree.map(lambda c: jax.random.normal(keys[3], c.shape), carry)
    mask = jax.random.bernoulli(keys[4], 0.6, (T, B)) if masked else None
    return params, carry, x, mask


def derived(run):
    def loss(*primals):
        last, hs = run(*primals)
        return (jnp.sin(last) * jnp.arange(last.size).reshape(last.shape)).sum() / last.size + (
            jnp.cos(3 * hs)
        ).sum(), hs

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))


def close(actual, expected):
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for a, e in pairs:
        scale = float(jnp.abs(e).max(initial=1e-3))
        np.testing.assert_allclose(a, e, rtol=0, atol=TOLERANCE * scale)


@pytest.fixture
def instruction_sets():
    """Those of the processor, each in use while it is the current one."""
    native.register()
    before = native.instruction_set()

    def each():
        for name in SETS:
            try:
                native.use(name)
            except ValueError:
                continue
            yield name

    yield each()
    native.use(before)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", ["lstm", "peephole", "gru"])
def test_values_and_gradients_are_those_of_the_plain_scan(instruction_sets, name, sizes, masked):
    H = sizes[3]
    cell = jl.gru(H) if name == "gru" else jl.lstm(H, peephole=name == "peephole")
    params, carry, x, mask = problem(cell, sizes, masked)
    valid = jnp.zeros((0, sizes[1]), bool) if mask is None else mask
    shown = lambda hs: hs if mask is None else jnp.where(mask[..., None], hs, 0)

    def plain(params, carry, x):
        last, hs = jl.scan(cell, params, x, carry, mask=mask, implementation="reference")
        return (last.h if name == "gru" else last.c), hs

    def kernel(lean, *primals):
        last, hs = (gru if name == "gru" else lstm)(lean, *primals, valid)
        return last, shown(hs)

    expected = derived(plain)(params, carry, x)
    runs = [derived(partial(kernel, lean)) for lean in (False, True)]
    for _ in instruction_sets:
        for run in runs:
            close(run(params, carry, x), expected)


def test_no_steps_give_the_initial_carry():
    native.register()
    params, carry, x, _ = problem(jl.lstm(7), (0, 2, 3, 7), False)
    run = derived(lambda *primals: lstm(False, *primals, jnp.zeros((0, 2), bool)))
    (_, hs), (g_params, g_carry, _) = run(params, carry, x)
    assert hs.shape == (0, 2, 7)
    assert all(not jnp.any(g) for g in jax.tree.leaves(g_params))
    weights = jnp.arange(14.0).reshape(2, 7) / 14
    close(g_carry, carry._replace(c=weights * jnp.cos(carry.c), h=jnp.zeros((2, 7))))


def test_calls_from_several_threads_do_not_disturb_each_other():
    native.register()
    params, carry, x, _ = problem(jl.lstm(64), (50, 32, 16, 64), False)
    none = jnp.zeros((0, 32), bool)
    differ = derived(lambda *primals: lstm(False, *primals, none))
    run = lambda seed: differ(params, carry, x + 0.01 * seed)
    expected = [run(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for actual, alone in zip(threads.map(run, range(4)), expected, strict=True):
            close(actual, alone)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"w_x": (3, 3, 5)}, r"w_x: expected float32 \(3, 4, 5\), got float32 \(3, 3, 5\)"),
        ({"peephole": (2, 5)}, r"peephole: expected .*\(3, 5\) or 0 for the first, got"),
        ({"valid": (7, 3)}, r"valid: expected bool \(7, 2\) or 0 for the first, got bool \(7, 3\)"),
    ],
    ids=lambda a: next(iter(a)) if isinstance(a, dict) else None,
)
def test_shapes_that_do_not_fit_are_named(wrong, message):
    native.register()
    shapes = {"x": (7, 2, 3), "w_x": (3, 4, 5), "w_h": (5, 4, 5), "b": (4, 5)}
    shapes |= {"peephole": (0, 5), "c0": (2, 5), "h0": (2, 5), "valid": (0, 2)} | wrong
    arrays = [jnp.zeros(s, bool if name == "valid" else None) for name, s in shapes.items()]
    call = jax.ffi.ffi_call("jaxlstm_lstm_forward", (shape(2, 5), shape(7, 2, 5)))
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(call(*arrays))


def test_an_instruction_set_that_there_is_not_is_an_error():
    with pytest.raises(ValueError, match=r"instruction_set: expected one .* got 'mmx'"):
        native.use("mmx")


def test_registering_twice_is_fine_and_the_instruction_set_has_a_name():
    native.register()
    native.register()
    assert native.instruction_set() in SETS
