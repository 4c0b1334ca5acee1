"""A run that takes a moment: its state counts how often each sample was seen."""

import time
from pathlib import Path

import numpy as np

from jaxlstm.data.buckets import Buckets
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.metrics import Metrics

SAMPLES, EPOCHS = 23, 3


def run(folder: str, every: int = 2, asynchronous: bool = True, keep: int = 1, pause: float = 0.0):
    """Sees each sample once an epoch, in shuffled batches, with checkpoints all the way."""
    place = Path(folder)
    place.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n % 5, 2)) for n in range(SAMPLES)]
    batches = Buckets(sequences, batch=4, bounds=(2, 4), seed=3)
    with Checkpoints(place / "checkpoints", keep=keep, asynchronous=asynchronous) as store:
        metrics = Metrics(place / "metrics.jsonl")
        state = {"params": {"seen": np.zeros(SAMPLES, np.int64), "sum": np.zeros(2)}}
        step = 0
        if (found := store.restore(state)) is not None:
            step, state = found.step, found.state
            batches.set_state(found.extra)
            for warning in found.warnings:
                print(warning, flush=True)
        metrics.cut(step)
        print(f"from {step}", flush=True)
        while batches.get_state()["epoch"] < EPOCHS:
            batch = next(batches)
            real = batch.sample[batch.sample >= 0]
            seen, total = state["params"]["seen"].copy(), state["params"]["sum"]
            np.add.at(seen, real, 1)
            state = {"params": {"seen": seen, "sum": total * 0.9 + batch.inputs.sum((0, 1))}}
            step += 1
            metrics.add({"step": step, "sum": float(total.sum())})
            store.poll()
            if step % every == 0 or batches.get_state()["epoch"] == EPOCHS:
                metrics.sync()
                store.save(step, state, batches.get_state())
            time.sleep(pause)
    print("done", flush=True)


def like():
    return {"params": {"seen": np.zeros(SAMPLES, np.int64), "sum": np.zeros(2)}}
