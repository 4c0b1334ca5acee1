"""`python -m experiments.language_model [sample]`."""

import sys
from functools import partial
from pathlib import Path

import jax

from jaxlstm.data.text import Streams
from jaxlstm.train import distributed
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.interruption import STOPPED, Interruption, StopRequestedError
from jaxlstm.train.metrics import Metrics


def main(arguments: list[str]) -> None:
    from experiments.language_model import (
        config,
        corpus,
        finish,
        pretrained,
        report,
        sample,
        train,
        workdir,
    )

    if arguments[:1] == ["sample"]:
        sample.main(arguments[1:])
        return
    settings, folder = config.parse(arguments)
    # Before the first look for devices; on a GPU or TPU it changes nothing.
    set_devices = partial(jax.config.update, "jax_num_cpu_devices", settings.devices or 1)
    joined = settings.distributed or settings.coordinator or settings.processes
    if joined:
        set_devices()
        distributed.join(
            settings.coordinator, settings.processes, settings.process, settings.deadline
        )
    begin = pretrained.load(settings) if settings.begin_with else None
    data = corpus.load(settings, begin and begin.vocabulary)
    shard = (jax.process_index(), jax.process_count()) if joined else (0, 1)
    streams = Streams(data.train, settings.batch, settings.window, shard)
    if not joined:
        set_devices()
    report.say("\n".join(data.report))
    place, leads = Path(folder), distributed.leads()
    devices = train.use_devices(settings)
    identity = workdir.identity(settings, data, begin.fingerprint if begin else "")
    workdir.check(place, identity)
    with (
        Interruption() as stop,
        Checkpoints(
            place / "checkpoints",
            identity=identity,
            setting=None if settings.elsewhere else {"devices": len(devices)},
            finite=lambda state: state.params,
            writes=leads,
        ) as store,
    ):
        if leads:
            workdir.claim(place, identity, settings, data.vocabulary)
        report.say(f"folder: {place}")
        board = place / "tensorboard" if settings.tensorboard and leads else None
        metrics = Metrics(place / "metrics.jsonl", board)
        trained = train.train(settings, data, streams, metrics, store, stop, begin and begin.params)
        check = stop.check if shard[1] == 1 else lambda: None
        result = finish.finish(settings, data, place, trained, metrics, check)
        metrics.close()
    if leads:
        print(report.table(settings, result))
        print(f"learning curve: {place / 'learning_curve.png'}\n\na sample:")
        print((place / "sample.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, FloatingPointError, OSError) as error:
        sys.exit(f"error: {error}")
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        sys.exit(f"error: another process is gone, or silent: {error}")
    except StopRequestedError as error:
        print(f"stopped by {error}: saved; the same command goes on", file=sys.stderr)
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        sys.exit(130)
