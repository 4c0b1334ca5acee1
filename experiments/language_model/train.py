"""Training: one whole loop, from the text to the metrics."""

import dataclasses
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from experiments.language_model import model, ngram, workdir
from experiments.language_model.config import FREE, Config
from experiments.language_model.corpus import Data
from experiments.language_model.report import learning_curve, summary, write_json
from experiments.language_model.sample import sample
from experiments.language_model.state import State, initial_state, optimizer
from jaxlstm.data.text import Streams
from jaxlstm.train import checkpoint


def train_step(config: Config, rule: optax.GradientTransformation, mesh: Mesh):
    """A jitted `(state, step, tokens, targets, fresh) -> (state, nats a symbol)`.

    The loss is the mean over streams and, for AdamW, over time; for SGD the sum over time, as
    Zaremba et al. have it.
    """
    steps_in_loss = config.window if config.optimizer == "sgd" else 1

    def shard(state, step, tokens, targets, fresh):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), step)
        key = jax.random.fold_in(key, jax.lax.axis_index("data"))
        key, of_restart = jax.random.split(key)
        anew = fresh | jax.random.bernoulli(of_restart, config.restart, (tokens.shape[1], 1))
        carry = jax.tree.map(lambda c: jnp.where(anew, 0, c), state.carry)

        def loss(params):
            after, nats, smooth = model.losses(config, params, carry, tokens, targets, key)
            return smooth.mean() * steps_in_loss, (nats.mean(), after)

        (_, (value, carry)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        gradient, value = jax.lax.pmean((gradient, value), "data")
        updates, after = rule.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, after, carry, state.key), value

    specs = State(P(), P(), P("data"), P())
    over_batch = P(None, "data")
    sharded = jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(specs, P(), over_batch, over_batch, P()),
        out_specs=(specs, P()),
        check_vma=False,
    )
    return jax.jit(sharded, donate_argnums=0)


def evaluator(config: Config, window: int = 256):
    """`(params, tokens) -> nats a symbol` over a whole text, from one stream of it."""

    @jax.jit
    def run(params, carry, tokens, targets, count):
        carry, nats, _ = model.losses(config, params, carry, tokens, targets, None)
        return carry, jnp.where(jnp.arange(window)[:, None] < count, nats, 0).sum()

    def evaluate(params, tokens):
        carry = model.initial_carry(config, params, 1)
        total, last = 0.0, len(tokens) - 1
        sums = []
        for start in range(0, last, window):
            count = min(window, last - start)
            span = np.zeros((window + 1, 1), np.int32)
            span[: count + 1, 0] = tokens[start : start + count + 1]
            carry, nats = run(params, carry, span[:-1], span[1:], count)
            sums.append(nats)
        total = math.fsum(map(float, sums))
        return total / last

    return evaluate


def train(config: Config, data: Data, streams: Streams, folder: Path) -> dict[str, Any]:
    """Trains, or goes on training, and returns what `metrics.json` holds."""
    steps = config.steps or math.ceil(config.epochs * streams.windows)
    watch_every = config.watch_every or max(1, steps // 10)
    devices = use_devices(config)
    mesh = Mesh(np.array(devices), ("data",))
    shardings = State(*(NamedSharding(mesh, s) for s in (P(), P(), P("data"), P())))
    rule = optimizer(config, steps, streams.windows)
    step_function, evaluate = train_step(config, rule, mesh), evaluator(config)

    begin = partial(initial_state, config, rule, len(data.vocabulary))
    metrics = workdir.Metrics(folder / "metrics.jsonl")
    like = jax.eval_shape(begin)
    restored = checkpoint.restore_latest(folder / "checkpoints", like)
    if restored is None:
        state, step, seconds = jax.jit(begin)(), 0, 0.0
        metrics.cut(0)
    else:
        state, extra, warnings = restored
        step, seconds = extra["step"], extra["seconds"]
        streams.set_state(extra["streams"])
        metrics.cut(step)
        for line in [*warnings, f"going on after step {step:,} of {steps:,}"]:
            print(line, flush=True)
    state = State(*map(jax.device_put, state, shardings))
    size = sum(a.size for a in jax.tree.leaves(state.params))
    print(f"model: {model.cells(config)[0]} x {config.layers}, {size:,} params", flush=True)
    each = config.batch // len(devices)
    print(f"devices: {len(devices)} x {devices[0].device_kind}, {each} streams on each", flush=True)

    def save():
        extra = {"step": step, "seconds": seconds, "streams": streams.get_state()}
        checkpoint.save(folder / "checkpoints", step, state, extra)

    symbols = config.batch * config.window
    pending: list[jax.Array] = []
    began = saved = time.perf_counter()
    with tqdm(
        total=steps * symbols,
        initial=step * symbols,
        unit=" symbols",
        unit_scale=True,
        mininterval=1,
    ) as bar:
        while step < steps:
            tokens, targets, fresh = next(streams)
            state, value = step_function(state, step, tokens, targets, fresh)
            pending.append(value)
            step += 1
            if len(pending) > 2:
                pending[-3].block_until_ready()  # the bar and the clock keep up with the device
            bar.update(symbols)
            at_watch = step % watch_every == 0 and step < steps
            if step % config.log_every and not at_watch and step < steps:
                continue
            nats = float(np.mean(jax.device_get(pending)))
            pending = []
            now = time.perf_counter()
            seconds, began = seconds + now - began, now
            bar.set_postfix_str(f"{nats:.3f} nats")
            line = {
                "step": step,
                "epoch": streams.get_state()["epoch"],
                "train_nats": nats,
                "seconds": seconds,
            }
            if not math.isfinite(nats):
                raise FloatingPointError(f"the loss became {nats} at step {step}")
            if at_watch:
                line["valid_nats"] = evaluate(state.params, data.valid[: config.watch_symbols])
                bar.write(
                    f"step {step:,}: {nats:.3f} nats in training, {line['valid_nats']:.3f} on valid"
                )
                began = time.perf_counter()  # the clock is that of training alone
            metrics.add(line)
            if now - saved > config.checkpoint_seconds and step < steps:
                save()
                saved = began = time.perf_counter()
        if restored is None or extra["step"] < steps:
            save()
    return finish(config, data, folder, state.params, metrics, evaluate, step, seconds, symbols)


def finish(config, data, folder, params, metrics, evaluate, step, seconds, symbols):
    """The evaluation over the whole held-out texts, the floor, the picture and the sample."""
    print("evaluating over the whole held-out texts", flush=True)
    params = jax.device_put(params, jax.devices()[0])
    test = evaluate(params, data.test)
    same = np.array_equal(data.test, data.valid)
    valid = test if same else evaluate(params, data.valid)
    size = len(data.vocabulary)
    floors = {
        name: ngram.cross_entropies(data.train, tokens, size, config.ngram_order)
        for name, tokens in (("valid", data.valid), ("test", data.test))
    }
    order = int(np.argmin(floors["valid"]))
    result = {
        "test": summary(config, test),
        "valid": summary(config, valid),
        "floor": {
            "model": f"Witten-Bell {order + 1}-gram",
            **summary(config, floors["test"][order]),
        },
        "seconds": round(seconds, 1),
        "tokens_per_second": round(step * symbols / seconds) if seconds else 0,
        "steps": step,
        "params": sum(a.size for a in jax.tree.leaves(params)),
        "valid_is_test": same,
    }
    write_json(folder / "metrics.json", result)
    learning_curve(folder / "learning_curve.png", metrics.lines(), result, config)
    text = "".join(
        sample(config, data.vocabulary, params, "\n", config.sample_length, seed=config.seed)
    )
    (folder / "sample.txt").write_text(text, encoding="utf-8")
    return result


def use_devices(config: Config) -> list[jax.Device]:
    """The devices that the batch is split over: as many as divide it."""
    devices = jax.local_devices()
    count = min(config.devices or len(devices), len(devices))
    if config.devices > len(devices):
        raise ValueError(f"--devices: {config.devices} are asked for, {len(devices)} are here")
    while config.batch % count:
        count -= 1
    return devices[:count]


def describe(config: Config, data: Data) -> dict[str, Any]:
    """All that must be the same for a run to be gone on with."""
    devices = use_devices(config)
    return {
        **{k: v for k, v in dataclasses.asdict(config).items() if k not in FREE},
        "devices": len(devices),
        "platform": devices[0].platform,
        "text": data.fingerprint,
    }
