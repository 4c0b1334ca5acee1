"""What verification and manifests add to a save and a restore.

    python -m experiments.benchmarks.checkpoints [--megabytes 100] [--rounds 15]

A state of that size in 25 arrays, saved and restored by Orbax as it comes (`orbax`: its default
format; `plain`: the format that our checkpoints have, not compressed, made durable by fsync) and
by `Checkpoints`: `whole` in the foreground, to its verified end; `blocked` is what the training
loop waits for when the rest is done in the background, Orbax's or ours. Interleaved, medians.
Results: README.md.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxlstm.train import arrays, restoring
from jaxlstm.train.checkpoints import Checkpoints


def state(megabytes: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    size = megabytes * 10**6 // 25 // 4
    return {f"w{n}": jax.numpy.asarray(rng.normal(size=size), "float32") for n in range(25)}


def timed(action) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def one_round(folder: Path, tree: dict[str, jax.Array]) -> dict[str, float]:
    """Seconds of each way to save and to restore, once."""
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)
    as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in tree}
    out = {}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        out["save, orbax"] = timed(lambda: orbax.save(folder / "orbax", tree))
        out["restore, orbax"] = timed(
            lambda: orbax.restore(folder / "orbax", restore_args=as_numpy)
        )
    with ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        out["save, orbax, blocked"] = timed(lambda: orbax.save(folder / "async", tree))
        orbax.wait_until_finished()
    out["save, plain"] = timed(lambda: arrays.write(folder / "plain", arrays.on_host(tree)))
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as plain:
        out["restore, plain"] = timed(
            lambda: plain.restore(folder / "plain", restore_args=as_numpy)
        )
    with Checkpoints(folder / "whole", asynchronous=False) as store:
        out["save, whole"] = timed(lambda: store.save(1, tree))
    with Checkpoints(folder / "blocked") as store:
        out["save, blocked"] = timed(lambda: store.save(1, tree))
    out["restore, whole"] = timed(lambda: restoring.restore(folder / "whole", 1, like))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    tree = state(given.megabytes)
    rounds = []
    for _ in range(given.rounds + 1):
        folder = Path(tempfile.mkdtemp())
        rounds.append(one_round(folder, tree))
        shutil.rmtree(folder)
    print(f"{given.megabytes} MB in {len(tree)} arrays, medians of {given.rounds} rounds")
    for name in rounds[0]:
        seconds = np.median([r[name] for r in rounds[1:]])
        print(f"{name:20} {1e3 * seconds:7.0f} ms")


if __name__ == "__main__":
    main()
