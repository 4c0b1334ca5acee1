"""Training: one whole loop, from the text to the last checkpoint."""

import math
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from tqdm import tqdm

from experiments.language_model import model
from experiments.language_model.config import Config
from experiments.language_model.corpus import Data
from experiments.language_model.state import State, initial_state, optimizer
from experiments.language_model.step import SPECS, Seen, evaluator, train_step
from jaxlstm.data.text import Streams
from jaxlstm.train import guard
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.interruption import Interruption, StopRequestedError
from jaxlstm.train.manifest import CheckpointError
from jaxlstm.train.metrics import Metrics


class Trained(NamedTuple):
    params: Any
    step: int
    seconds: float  # of training alone


def train(
    config: Config,
    data: Data,
    streams: Streams,
    metrics: Metrics,
    store: Checkpoints,
    stop: Interruption,
) -> Trained:
    """Trains, or goes on training, to the last step.

    Raises:
      StopRequestedError: if it was told to stop; everything is saved.
      FloatingPointError: if the guard stops it; the newest checkpoint is from before.
      OSError, CheckpointError: if a checkpoint can't be written, unless it is to go on.
    """
    steps = config.steps or math.ceil(config.epochs * streams.windows)
    watch_every = config.watch_every or max(1, steps // 10)
    devices = use_devices(config)
    mesh = Mesh(np.array(devices), ("data",))
    rule = optimizer(config, steps, streams.windows)
    policy = guard.Policy(config.on_nonfinite, config.on_spike, config.budget)
    step_function, evaluate = train_step(config, rule, mesh), evaluator(config, stop.check)
    symbols = config.batch * config.window

    begin = partial(initial_state, config, rule, len(data.vocabulary))
    like = jax.eval_shape(begin)
    restored = store.restore(like)
    step, seconds, pending = 0, 0.0, []
    if restored is None:
        state = jax.jit(begin)()
        metrics.cut(0)
    else:
        step, state, extra = restored.step, restored.state, restored.extra
        seconds, pending = extra["seconds"], [Seen(*seen) for seen in extra["pending"]]
        streams.set_state(extra["streams"])
        metrics.cut(step - 1 if pending else step)
        for line in [*restored.warnings, f"going on after step {step:,} of {steps:,}"]:
            print(line, flush=True)
    state = placed(state, mesh)
    size = sum(a.size for a in jax.tree.leaves(state.params))
    print(f"model: {model.cells(config)[0]} x {config.layers}, {size:,} params", flush=True)
    each = config.batch // len(devices)
    print(f"devices: {len(devices)} x {devices[0].device_kind}, {each} streams on each", flush=True)

    def save(score):
        extra = {"seconds": seconds, "streams": streams.get_state()}
        metrics.sync()
        store.save(step, state, {**extra, "pending": as_numbers(pending)}, score)

    def survive(action):
        """Does what a full disk may prevent; whether that ends the run is configured."""
        try:
            action()
        except (OSError, CheckpointError) as error:
            if config.on_save_error == "stop":
                raise
            tqdm.write(f"step {step:,}: {error}; going on without it")

    began = saved = time.perf_counter()
    saved_at = -1 if restored is None else step
    with tqdm(
        total=steps * symbols,
        initial=step * symbols,
        unit=" symbols",
        unit_scale=True,
        mininterval=1,
    ) as bar:
        while True:
            survive(store.poll)
            action, score = "", None
            at_watch = step % watch_every == 0 or step == steps
            if pending and (step % config.log_every == 0 or at_watch):
                seen = Seen(*np.array(as_numbers(pending)).T)
                now = time.perf_counter()
                seconds, began = seconds + now - began, now
                line = {"step": step, "epoch": streams.get_state()["epoch"], **said(seen)}
                line["seconds"] = seconds
                bar.set_postfix_str(f"{line['train_nats']:.3f} nats")
                action, why = policy.action(seen.verdict, int(seen.bad[-1]))
                if action == "stop":
                    survive(partial(metrics.add, {"step": step, "event": "stop", "why": why}))
                    raise FloatingPointError(f"step {step:,}: {why}")
                if at_watch:
                    try:
                        score = evaluate(state.params, data.valid[: config.watch_symbols])
                    except StopRequestedError:
                        save(None)  # with what is pending: the same step is watched again
                        store.wait()
                        raise
                    line["valid_nats"] = score
                    bar.write(
                        f"step {step:,}: {line['train_nats']:.3f} nats in training, "
                        f"{score:.3f} on valid"
                    )
                    began = time.perf_counter()  # the clock is that of training alone
                pending = []
                survive(partial(metrics.add, line))
                if action:
                    event = {"step": step, "event": action, "why": why}
                    if action == "rollback" and (before := store.restore(like)) is not None:
                        state = placed(before.state._replace(guard=state.guard), mesh)
                        event["to"] = before.step
                    survive(partial(metrics.add, event))
                    bar.write(f"step {step:,}: {action}: {why}")
            due = config.checkpoint_steps and step % config.checkpoint_steps == 0
            late = time.perf_counter() - saved > config.checkpoint_seconds
            if step != saved_at and (due or late or at_watch or action or stop.requested):
                survive(partial(save, score))
                saved, saved_at = time.perf_counter(), step
            if step == steps:
                break
            if stop.requested:
                store.wait()
                stop.check()
            tokens, targets, fresh = next(streams)
            state, seen = step_function(state, step, tokens, targets, fresh)
            pending.append(seen)
            step += 1
            bar.update(symbols)
            if len(pending) > 2:
                jax.block_until_ready(pending[-3])  # the bar and the clock keep up
    store.wait()
    return Trained(state.params, step, seconds)


def as_numbers(pending: list[Seen]) -> list[list[float]]:
    return [[float(value) for value in seen] for seen in jax.device_get(pending)]


def said(seen: Seen) -> dict[str, Any]:
    """A line of metrics about some steps: means over those that were made."""
    made = seen.verdict == guard.GOOD
    mean = lambda values: float(values[made].mean()) if made.any() else math.nan
    line: dict[str, Any] = {"train_nats": mean(seen.nats), "gradient_norm": mean(seen.norm)}
    if not made.all():
        line["not_made"] = int((~made).sum())
    return line


def placed(state: State, mesh: Mesh) -> State:
    """The state on the devices."""
    put = lambda part, spec: jax.device_put(part, NamedSharding(mesh, spec))
    return State(*map(put, state, SPECS))


def use_devices(config: Config) -> list[jax.Device]:
    """The devices that the batch is split over: as many as divide it."""
    devices = jax.local_devices()
    count = min(config.devices or len(devices), len(devices))
    if config.devices > len(devices):
        raise ValueError(f"--devices: {config.devices} are asked for, {len(devices)} are here")
    while config.batch % count:
        count -= 1
    return devices[:count]
