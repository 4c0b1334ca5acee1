"""One process's view; several real ones are in tests/faults/processes.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlstm.train import distributed
from jaxlstm.train.checkpoints import Checkpoints


def test_a_wish_is_done_by_all_after_the_same_step():
    agreement, done = distributed.Agreement(lag=2), []
    wishes = [0, 0, 2, 2, 1, 0, 0, 0, 1, 0, 0, 0]
    for step, wish in enumerate(wishes):
        done.append((step, agreement.reached()))
        agreement.ask(jnp.int32(wish))
    # What was wished up to the deed is settled by it: the 2 of step 3 and the 1 of step 4 are.
    assert [(step, wish) for step, wish in done if wish] == [(5, 2), (11, 1)]


def test_alone_everything_is_at_hand():
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    over, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    state = {"carry": np.arange(4.0), "key": jax.random.key(3)}
    put = distributed.placed(state, {"carry": over, "key": whole})
    assert put["carry"].sharding == over
    assert put["key"] == state["key"]
    batch = distributed.spread((np.ones((2, 4)),), (NamedSharding(mesh, P(None, "data")),))
    assert batch[0].addressable_shards[0].data.shape == (2, 2)
    back = distributed.gathered(put)
    np.testing.assert_array_equal(back["carry"], state["carry"])
    one = distributed.here({"key": put["key"]})
    assert one["key"].devices() == {jax.devices()[0]}
    assert distributed.leads()


def test_who_is_who_is_told_in_whole_or_not_at_all():
    with pytest.raises(ValueError, match="coordinator, processes and process: expected all three"):
        distributed.join(coordinator="localhost:1234", processes=2)


def test_only_one_process_writes(tmp_path):
    with Checkpoints(tmp_path, writes=False) as store:
        assert store.restore({"a": np.zeros(1)}) is None
        with pytest.raises(ValueError, match="another process writes these checkpoints"):
            store.save(1, {"a": np.zeros(1)})
    assert not list(tmp_path.iterdir())
