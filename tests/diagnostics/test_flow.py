"""Gradients over time against PyTorch's retained ones and finite differences; Jacobians by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.diagnostics import (
    gradient_flow,
    jacobian_norms,
    jacobian_products,
    lyapunov_exponents,
)
from tests import papers

T, B, D, H = 6, 3, 4, 5
KEY = jax.random.key(7)
XS = jnp.asarray(papers.normal(T, B, D))
SAME = dict(rtol=0, atol=1e-12)  # float64, some ten products of numbers of about one


def square(carry, ys):
    return (ys**2).sum()


def test_gradients_against_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of dL/dh, is not installed")
    deep = jl.stack(jl.lstm(H, peephole=True), jl.lstm(2))
    params = papers.drawn(deep, XS[0], KEY)
    peephole = jnp.asarray(papers.normal(3, H))
    params = (params[0]._replace(peephole=peephole), params[1])
    carry = jax.tree.map(lambda a: a + 0.3, deep.initial_carry(params, XS[0]))
    flow = gradient_flow(square, deep, params, XS, carry)
    tensor = lambda a: torch.tensor(np.asarray(a), requires_grad=True)
    kept = {}

    def keep(name, value):
        value.retain_grad()
        kept.setdefault(name, []).append(value)
        return value

    states = [(tensor(c.c), tensor(c.h)) for c in carry]
    loss = 0
    for t in range(T):
        x = torch.tensor(np.asarray(XS[t]))
        for n, (p, (c, h)) in enumerate(zip(params, states, strict=True)):
            w_x, w_h, b = map(tensor, p[:3])
            a = torch.einsum("bd,dgh->bgh", x, w_x) + torch.einsum("br,rgh->bgh", h, w_h) + b
            eyes = [0, 0, 0] if p.peephole is None else tensor(p.peephole)
            i = keep(f"{n}.i", torch.sigmoid(a[:, 0] + eyes[0] * c))
            f = keep(f"{n}.f", torch.sigmoid(a[:, 1] + eyes[1] * c))
            g = keep(f"{n}.g", torch.tanh(a[:, 2]))
            c = keep(f"{n}.c", f * c + i * g)
            o = keep(f"{n}.o", torch.sigmoid(a[:, 3] + eyes[2] * c))
            x = keep(f"{n}.h", o * torch.tanh(c))
            states[n] = c, x
        loss = loss + (x**2).sum()
    loss.backward()
    np.testing.assert_allclose(flow.loss, loss.item(), **SAME)
    found = flow.gates | flow.candidates | flow.states
    assert sorted(found) == sorted(kept)
    for name, values in kept.items():
        expected = np.stack([v.grad.numpy() for v in values])
        np.testing.assert_allclose(found[name], expected, err_msg=name, **SAME)
        if name[-1] in "ch":
            np.testing.assert_allclose(flow.norms[name], np.linalg.norm(expected, axis=-1), **SAME)


def test_both_directions_and_lengths():
    """dL/dh is the difference of the loss where the sequence goes on from another h."""
    both = jl.stack(jl.bidirectional(jl.lstm(H), jl.gru(H)), jl.elman(2))
    params, lengths = papers.drawn(both, XS[0], KEY), jnp.array([6, 4, 0])
    flow = gradient_flow(square, both, params, XS, lengths=lengths)
    _, ys = both.apply(params, XS, lengths=lengths)
    np.testing.assert_allclose(flow.loss, (ys**2).sum(), **SAME)
    assert {name: a.shape for name, a in flow.norms.items()} == dict.fromkeys(
        ["0.forward.c", "0.forward.h", "0.backward.h", "1.h"], (T, B)
    )
    forward, xs = jl.lstm(H), XS[:, 1, :][:4]
    _, zs = jl.scan(jl.gru(H), params[0].backward, xs, reverse=True)
    start, head = jl.scan(forward, params[0].forward, xs[:2])

    def loss(h):
        begun, first = head[0], h
        _, rest = jl.scan(forward, params[0].forward, xs[2:], start._replace(h=h))
        hs = jnp.concatenate([begun[None], first[None], rest])
        return (jl.scan(jl.elman(2), params[1], jnp.concatenate([hs, zs], -1))[1] ** 2).sum()

    expected = jax.grad(loss)(start.h)
    np.testing.assert_allclose(flow.states["0.forward.h"][1, 1], expected, **SAME)
    assert not flow.states["0.forward.h"][4:, 1].any()
    assert not flow.states["0.backward.h"][:, 2].any()


@pytest.mark.parametrize(
    "wrapped",
    [jl.residual(jl.lstm(D)), jl.zoneout(jl.lstm(D), c=0.5), jl.learned_start(jl.lstm(D))],
    ids=str,
)
def test_the_last_states_gradient_is_that_of_the_loss(wrapped):
    params = papers.drawn(wrapped, XS[0], KEY)
    loss = lambda carry, ys: (jax.tree.leaves(carry)[0] ** 2).sum()
    flow = gradient_flow(loss, wrapped, params, XS, key=KEY)
    last, _ = jl.scan(wrapped, params, XS, key=KEY)
    np.testing.assert_allclose(flow.states["c"][-1], 2 * jax.tree.leaves(last)[0], **SAME)
    assert not flow.gates["o"][-1].any()


def test_a_step_of_its_own_jit_and_pictures():
    gru = jl.gru(H)
    params = papers.drawn(gru, XS[0], KEY)
    jitted = gru._replace(step=jax.jit(gru.step), unroll=None)
    expected, flow = (gradient_flow(square, cell, params, XS) for cell in (gru, jitted))
    for name in ("r", "z"):
        np.testing.assert_allclose(flow.gates[name], expected.gates[name], **SAME)
    np.testing.assert_allclose(flow.states["h"], expected.states["h"], **SAME)
    pictures, frames = jl.convlstm(2, kernel=(3, 3)), jnp.ones((2, B, 4, 5, 1))
    params = papers.drawn(pictures, frames[0], KEY)
    assert gradient_flow(square, pictures, params, frames, axes=3).norms["c"].shape == (2, B)


def constant_flow():
    """An LSTM of f = 1 and i = 0 to the last digit: a constant error carousel."""
    cell = jl.lstm(2)
    params = papers.drawn(cell, XS[0], KEY)
    return cell, params._replace(b=params.b.at[0].set(-1e3).at[1].set(1e3))


def test_constant_error_flow():
    cell, params = constant_flow()
    products = jacobian_products(cell, params, XS, of="c", by="c", start=1)
    np.testing.assert_array_equal(products, np.broadcast_to(np.eye(2), (T - 1, B, 2, 2)))
    np.testing.assert_allclose(jacobian_norms(cell, params, XS, of="c", by="c"), 1, **SAME)
    np.testing.assert_array_equal(jacobian_products(cell, params, XS, of="c", by="h"), 0)
    flow = gradient_flow(lambda carry, ys: carry.c.sum(), cell, params, XS)
    np.testing.assert_array_equal(flow.states["c"], 1)


def test_jacobians_of_one_tanh_unit():
    cell, u = jl.elman(1), 1.7
    params = papers.drawn(cell, XS[0], KEY)._replace(w_h=jnp.array([[u]]))
    h = np.asarray(jl.scan(cell, params, XS)[1])
    slopes = u * (1 - h**2)
    products = jacobian_products(cell, params, XS, start=2)
    np.testing.assert_allclose(products[..., 0], np.cumprod(slopes[2:], 0), **SAME)
    norms = jacobian_norms(cell, params, XS, start=2, ord="fro")
    np.testing.assert_allclose(norms, np.abs(products[..., 0, 0]), **SAME)
    exponents = lyapunov_exponents(cell, params, XS, skip=2)
    np.testing.assert_allclose(exponents, np.log(np.abs(slopes[2:])).mean(0), **SAME)


def test_jacobians_of_an_lstm_are_those_of_its_unrolled_steps():
    cell = jl.stack(jl.lstm(2), jl.gru(3))
    params = papers.drawn(cell, XS[0], KEY)
    carry = cell.initial_carry(params, XS[0, 0])
    carry, _ = jl.scan(cell, params, XS[:2, 0], carry)

    def later(c):
        begun = (carry[0]._replace(c=c), carry[1])
        return jl.scan(cell, params, XS[2:, 0], begun)[0][1].h

    expected = jax.jacrev(later)(carry[0].c)
    products = jacobian_products(cell, params, XS, of="1.h", by="0.c", start=2)
    np.testing.assert_allclose(products[-1, 0], expected, **SAME)
    whole = jacobian_products(cell, params, XS, start=2)
    assert whole.shape == (T - 2, B, 7, 7)
    np.testing.assert_allclose(whole[..., 4:, :2], products, **SAME)
    norms = jacobian_norms(cell, params, XS, start=2)
    np.testing.assert_allclose(norms, np.linalg.norm(whole, 2, (-2, -1)), **SAME)


@jl.cell
def linear(size: int):
    """h' = h A + x."""

    def initial_carry(params, x, key=None):
        return jnp.zeros(x.shape, x.dtype)

    def step(params, h, x):
        h = h @ params + x
        return h, h

    return lambda key, x: jnp.eye(size), initial_carry, step


def test_lyapunov_exponents_of_a_linear_cell():
    a = np.array([[0.5, 3.0, 0.0], [0.0, 1.1, -0.4], [0.0, 0.0, 0.2]])  # eigenvalues: the diagonal
    xs = jnp.zeros((400, 2, 3))
    exponents = lyapunov_exponents(linear(3), jnp.array(a), xs, skip=100)
    expected = np.log([[1.1, 0.5, 0.2]] * 2)
    np.testing.assert_allclose(exponents, expected, atol=1e-10)  # Q has settled by 0.45**100
    largest = lyapunov_exponents(linear(3), jnp.array(a), xs, number=1, skip=100)
    np.testing.assert_allclose(largest, expected[:, :1], atol=1e-10)
    np.testing.assert_allclose(
        jacobian_products(linear(3), jnp.array(a), xs[:3])[2, 0],
        np.linalg.matrix_power(a, 3).T,
        **SAME,
    )


def test_the_sum_of_exponents_is_the_mean_volume():
    cell = jl.lstm(2)
    params = papers.drawn(cell, XS[0], KEY)
    exponents = lyapunov_exponents(cell, params, XS)
    volumes = np.linalg.det(jacobian_products(cell, params, XS)[-1])
    np.testing.assert_allclose(exponents.sum(-1), np.log(np.abs(volumes)) / T, atol=1e-9)


def test_errors_say_what_is_wrong():
    cell = jl.lstm(H)
    params = papers.drawn(cell, XS[0], KEY)
    both = jl.bidirectional(cell, cell)
    with pytest.raises(ValueError, match=r"loss: expected a scalar, got shape \(6, 3, 5\)"):
        gradient_flow(lambda carry, ys: ys, cell, params, XS)
    with pytest.raises(ValueError, match="axes: expected at most the 2 of xs without time, got 3"):
        gradient_flow(square, cell, params, XS, axes=3)
    with pytest.raises(ValueError, match=r"cell: expected a Cell \(of a Layer, those in it\)"):
        jacobian_products(both, papers.drawn(both, XS[0], KEY), XS)
    with pytest.raises(ValueError, match=r"of: expected None or one of \['c', 'h'\], got 'o'"):
        jacobian_products(cell, params, XS, of="o")
    with pytest.raises(ValueError, match="by: expected None or one of"):
        jacobian_norms(cell, params, XS, by="f")
    with pytest.raises(ValueError, match=r"start: expected a number of steps in \[0, 6\), got 6"):
        jacobian_products(cell, params, XS, start=6)
    with pytest.raises(ValueError, match="ord: expected 2 or 'fro', got 1"):
        jacobian_norms(cell, params, XS, ord=1)
    with pytest.raises(ValueError, match="number: expected at most 10, the numbers in the carry"):
        lyapunov_exponents(cell, params, XS, number=11)
    with pytest.raises(ValueError, match="skip: expected a number of steps"):
        lyapunov_exponents(cell, params, XS, skip=-1)
