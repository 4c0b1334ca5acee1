"""Training: one whole loop, from the text to the last checkpoint."""

import math
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.training.early_stopping import EarlyStopping
from jax.sharding import Mesh
from tqdm import tqdm

from experiments.language_model import model
from experiments.language_model.config import Config
from experiments.language_model.corpus import Data
from experiments.language_model.report import say
from experiments.language_model.state import (
    State,
    best_params,
    initial_state,
    optimizer,
    plateau,
)
from experiments.language_model.step import (
    Seen,
    batch_shardings,
    evaluator,
    state_shardings,
    train_step,
)
from jaxlstm.data.text import Streams
from jaxlstm.train import distributed, guard
from jaxlstm.train.averaging import begun, triggers
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.interruption import Interruption, StopRequestedError
from jaxlstm.train.manifest import CheckpointError
from jaxlstm.train.metrics import Metrics

NOTHING, SAVE, STOP = 0, 1, 2  # what a process may wish to do between two steps


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
    params: model.ModelParams | None = None,
) -> Trained:
    """Trains, from params if there are, or goes on training, to the last step.

    Raises:
      StopRequestedError: if it was told to stop; everything is saved.
      FloatingPointError: if the guard stops it; the newest checkpoint is from before.
      OSError, CheckpointError: if a checkpoint can't be written, unless it is to go on.
    """
    steps = config.steps or math.ceil(config.epochs * streams.windows)
    watch_every = config.watch_every or max(1, steps // 10)
    devices, alone = use_devices(config), jax.process_count() == 1
    mesh = Mesh(np.array(devices), ("data",))
    rule = optimizer(config, steps, streams.windows)
    policy = guard.Policy(config.on_nonfinite, config.on_spike, config.budget)
    # Several processes stop after the same step or not at all.
    check = stop.check if alone else lambda: None
    step_function, evaluate = train_step(config, rule, mesh), evaluator(config, check)
    agreement = distributed.Agreement()
    ours = sum(d.process_index == jax.process_index() for d in devices)
    symbols = config.batch * config.window

    begin = partial(initial_state, config, rule, len(data.vocabulary))
    like = jax.eval_shape(begin, params=params)
    restored = store.restore(like)
    leads = distributed.leads()
    cut = metrics.cut if leads else lambda step: None
    step, seconds, pending, unwritten, scores = 0, 0.0, [], [], []
    rolled_to = None  # the step that was gone back to because of what is pending
    if restored is None:
        state = jax.jit(begin)(params=params)
        cut(0)
    else:
        step, state, extra = restored.step, restored.state, restored.extra
        seconds, pending = extra["seconds"], [Seen(*seen) for seen in extra["pending"]]
        scores, rolled_to = extra["scores"], extra["rolled_to"]
        streams.set_state(extra["streams"], reshard=config.elsewhere)
        cut(step - 1 if pending else step)
        for line in [*restored.warnings, f"going on after step {step:,} of {steps:,}"]:
            say(line)
    shardings, over_batch = state_shardings(mesh, like), batch_shardings(mesh)
    state = distributed.placed(state, shardings)
    size = sum(a.size for a in jax.tree.leaves(state.params))
    say(f"model: {model.cells(config)[0]} x {config.layers}, {size:,} params")
    each = config.batch // len(devices)
    say(f"devices: {len(devices)} x {devices[0].device_kind}, {each} streams on each")

    def tell(*lines):
        unwritten.extend(lines if leads else ())
        while unwritten:
            metrics.add(unwritten[0])
            del unwritten[0]

    def save(score, needed=True):
        whole = distributed.gathered(state)  # by all of them, whatever their disks do

        def write():
            tell()  # a resumption counts on the lines before it
            metrics.sync()
            extra = {"seconds": seconds, "streams": streams.get_state(), "scores": scores}
            extra |= {"pending": as_numbers(pending), "rolled_to": rolled_to}
            store.save(step, whole, extra, score)

        if leads:
            survive(store.wait)  # for a save before, which is not this one's end
            write() if needed else survive(write)

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
        disable=not leads,
    ) as bar:
        announce = bar.write if leads else lambda line: None
        while True:
            survive(store.poll)
            action, score = "", None
            at_watch = step % watch_every == 0 or step == steps
            over = step == steps or ended(config, scores)
            if pending and (step % config.log_every == 0 or at_watch):
                seen = Seen(*np.array(as_numbers(pending)).T)
                now = time.perf_counter()
                seconds, began = seconds + now - began, now
                line = {"step": step, "epoch": streams.get_state()["epoch"], **said(seen)}
                line["seconds"] = seconds
                bar.set_postfix_str(f"{line['train_nats']:.3f} nats")
                action, why = policy.action(seen.verdict, int(seen.bad[-1]))
                if action == "stop":
                    survive(partial(tell, {"step": step, "event": "stop", "why": why}))
                    raise FloatingPointError(f"step {step:,}: {why}")
                undone = action == "rollback" and rolled_to is None
                if undone and (before := store.restore(like)) is not None:
                    rolled_to = before.step
                    taken = distributed.placed(before.state, shardings)
                    state = taken._replace(guard=state.guard, plateau=state.plateau)
                if at_watch:
                    try:
                        params = distributed.here(best_params(state))
                        score = evaluate(params, data.valid[: config.watch_symbols])
                    except StopRequestedError:
                        save(None)  # with what is pending: the same step is watched again
                        store.wait()
                        raise
                    line["valid_nats"] = score
                    scores = [*scores, score]
                    state = watched(config, state, scores)
                    over = over or ended(config, scores)
                    announce(
                        f"step {step:,}: {line['train_nats']:.3f} nats in training, "
                        f"{score:.3f} on valid"
                    )
                    began = time.perf_counter()  # the clock is that of training alone
                pending = []
                survive(partial(tell, line))
                if action:
                    event = {"step": step, "event": action, "why": why}
                    event |= {} if rolled_to is None else {"to": rolled_to}
                    survive(partial(tell, event))
                    announce(f"step {step:,}: {action}: {why}")
                    rolled_to = None
            due = config.checkpoint_steps and step % config.checkpoint_steps == 0
            late = time.perf_counter() - saved > config.checkpoint_seconds
            wish = STOP if stop.requested else SAVE if late else NOTHING
            do = wish if alone else agreement.reached()
            if (step != saved_at or score is not None) and (due or do or at_watch or action):
                save(score, needed=do == STOP or over)
                saved, saved_at = time.perf_counter(), step
            if over:
                break
            if do == STOP:
                store.wait()
                stop.check()
                raise StopRequestedError("another process")
            tokens, targets, fresh = next(streams)
            batch = tokens, targets, np.full(ours, wish)
            state, seen = step_function(state, step, *distributed.spread(batch, over_batch), fresh)
            pending.append(seen)
            agreement.ask(seen.wish)
            step += 1
            bar.update(symbols)
            if len(pending) > 2:
                jax.block_until_ready(pending[-3])  # the bar and the clock keep up
    store.wait()
    return Trained(distributed.here(best_params(state)), step, seconds)


def watched(config: Config, state: State, scores: list[float]) -> State:
    """The state after an evaluation, by which rates decay and averages begin."""
    if config.schedule == "plateau":
        _, after = plateau(config).update({}, state.plateau, value=scores[-1])
        state = state._replace(plateau=after)
    if state.average is not None and triggers(scores, config.nonmonotone):
        state = state._replace(average=begun(state.average, state.params))
    return state


def ended(config: Config, scores: list[float]) -> bool:
    """Whether the valid text says that more training makes nothing better."""
    early = EarlyStopping(patience=config.patience - 1)
    for score in scores if config.patience else ():
        early = early.update(score)
    return early.should_stop


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


def use_devices(config: Config) -> list[jax.Device]:
    """The devices that the batch is split over; by default, and alone, as many as divide it.

    Raises:
      ValueError: if there are not so many, or they don't divide it.
    """
    here = jax.local_device_count()
    count = config.devices or here
    if count > here:
        raise ValueError(f"--devices: {count} are asked for, {here} are here")
    processes = jax.process_count()
    while not config.devices and processes == 1 and config.batch % count:
        count -= 1
    if config.batch % (count * processes):
        raise ValueError(
            f"--batch: expected a multiple of {count * processes}, the devices of all processes "
            f"(--devices), got {config.batch}"
        )
    numbers = [[d for d in jax.devices() if d.process_index == n] for n in range(processes)]
    return [d for of_one in numbers for d in of_one[:count]]
