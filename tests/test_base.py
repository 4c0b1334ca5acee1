import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.base import restart, select

KEY = jax.random.key(0)


def counted():
    """A factory of running sums, and a list that grows by one at every trace of their step."""
    traces = []

    @jl.cell
    def running_sum(size: int, *, decay: float = 1.0):
        """A sum."""

        def init(key, x):
            return ()

        def initial_carry(params, x, key=None):
            return jnp.zeros((*x.shape[:-1], size), x.dtype)

        def step(params, carry, x):
            traces.append(size)
            carry = decay * carry + x.sum(-1, keepdims=True)
            return carry, carry

        return init, initial_carry, step

    return running_sum, traces


def test_equal_calls_give_the_same_cell_and_others_another():
    make, _ = counted()
    assert make(3) is make(size=3) is make(3, decay=1.0)
    assert make(3) is not make(4)
    assert make(1) is not make(True)
    assert counted()[0](3) is not make(3)


def test_ten_scans_of_fresh_equal_cells_trace_the_step_once():
    make, traces = counted()
    for number in range(10):
        _, ys = jl.scan(make(2), (), jnp.full((4, 1), 1.0 * number))
    assert traces == [2]
    np.testing.assert_array_equal(ys[:, 0], 9 * np.arange(1, 5))


def test_a_cell_is_named_after_its_call():
    make, _ = counted()
    assert repr(make(3)) == make(3).name == "running_sum(3)"
    assert repr(make(3, decay=0.5)) == "running_sum(3, decay=0.5)"
    assert repr(jl.stack(jl.lstm(4, peephole=True), jl.gru(2))) == (
        "stack(lstm(4, peephole=True), gru(2))"
    )
    assert repr(jl.bidirectional(jl.lstm(4), jl.gru(2))) == "bidirectional(lstm(4), gru(2))"
    assert repr(jl.Layer(None, None)) == "layer"


def test_a_factory_keeps_its_name_and_docstring():
    make, _ = counted()
    assert (make.__name__, make.__doc__) == ("running_sum", "A sum.")


def test_an_argument_that_can_not_be_hashed_raises():
    make, _ = counted()
    with pytest.raises(TypeError, match=r"running_sum: arguments must be hashable.*\[1, 2\]"):
        make([1, 2])


def test_equal_numbers_of_another_type_make_another_cell():
    sized = jl.cell(lambda *sizes: (None, None, None))
    assert sized((1, 2)) is sized((1, 2))
    for other in ((1.0, 2), (True, 2)):
        assert sized((1, 2)) is not sized(other)
        assert sized(1) is not sized(other[0])


def test_a_step_alone_makes_a_cell_without_an_unroll():
    cell = counted()[0](3)
    assert isinstance(cell, jl.Cell)
    assert cell.unroll is None


def test_persistent_is_a_pytree_that_shows_its_value():
    mask = jl.Persistent({"mask": jnp.ones(2)})
    doubled = jax.tree.map(lambda a: 2 * a, mask)
    assert isinstance(doubled, jl.Persistent)
    np.testing.assert_array_equal(doubled.value["mask"], [2, 2])
    assert repr(jl.Persistent(3)) == "Persistent(3)"


def test_select_chooses_by_the_first_axes_and_keeps_nan_out():
    new, old = jnp.ones((2, 3)), jnp.full((2, 3), jnp.nan)
    np.testing.assert_array_equal(select(jnp.array([True, True]), new, old), new)
    chosen = select(jnp.array([True, False]), {"a": new}, {"a": 0 * new})
    np.testing.assert_array_equal(chosen["a"], [[1, 1, 1], [0, 0, 0]])
    assert select(None, new, old) is new


def test_restart_begins_anew_where_told_except_what_is_persistent():
    carry = {"h": jnp.array([1.0, 2.0]), "mask": jl.Persistent(jnp.array([3.0, 4.0]))}
    initial = {"h": jnp.array([-1.0, -2.0]), "mask": jl.Persistent(jnp.array([0.0, 0.0]))}
    begun = restart(jnp.array([True, False]), initial, carry)
    np.testing.assert_array_equal(begun["h"], [-1, 2])
    np.testing.assert_array_equal(begun["mask"].value, [3, 4])
    assert restart(None, initial, carry) is carry
