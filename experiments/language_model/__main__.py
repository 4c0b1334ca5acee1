"""`python -m experiments.language_model [sample]`."""

import sys
from functools import partial
from pathlib import Path

import jax

from jaxlstm.data.text import Streams
from jaxlstm.interop.arrays import needed
from jaxlstm.train import distributed
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.interruption import STOPPED, Interruption, StopRequestedError
from jaxlstm.train.metrics import Metrics


def main(arguments: list[str]) -> None:
    needed("tqdm", "experiments")
    from experiments.language_model import (
        config,
        corpus,
        finish,
        model,
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
    needed("matplotlib", "experiments")
    place = Path(folder)
    # Before the first look for devices; on a GPU or TPU it changes nothing.
    set_devices = partial(jax.config.update, "jax_num_cpu_devices", settings.devices or 1)
    joined = settings.distributed or settings.coordinator
    if early := joined or settings.begin_with:
        set_devices()
    if joined:
        distributed.join(
            settings.coordinator, settings.processes, settings.process, settings.deadline
        )
    begin = pretrained.load(settings, place) if settings.begin_with else None
    data = corpus.load(settings, begin and begin.vocabulary)
    shard = (jax.process_index(), jax.process_count()) if joined else (0, 1)
    streams = Streams(data.train, settings.batch, settings.window, shard)
    if not early:
        set_devices()
    model.check(settings)
    report.say("\n".join(data.report))
    leads = distributed.leads()
    devices = train.use_devices(settings)
    identity = workdir.identity(settings, data, begin.fingerprint if begin else "")
    workdir.agree(place, settings, identity)
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
    except (ValueError, FloatingPointError, OSError, ImportError) as error:
        elsewhere = "was made with other versions or devices" in str(error)
        hint = "\n--elsewhere true goes on with it nevertheless, if not bit for bit"
        sys.exit(f"error: {error}{hint if elsewhere else ''}")
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        sys.exit(f"error: another process is gone, or silent: {error}")
    except StopRequestedError as error:
        print(f"stopped by {error}: saved; the same command goes on", file=sys.stderr)
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        sys.exit(130)
