"""`python -m experiments.language_model [sample]`."""

import sys
from pathlib import Path

import jax

from jaxlstm.data.text import Streams
from jaxlstm.train.checkpoints import Checkpoints
from jaxlstm.train.interruption import STOPPED, Interruption, StopRequestedError
from jaxlstm.train.metrics import Metrics


def main(arguments: list[str]) -> None:
    from experiments.language_model import config, corpus, finish, report, sample, train, workdir

    if arguments[:1] == ["sample"]:
        sample.main(arguments[1:])
        return
    settings, folder = config.parse(arguments)
    data = corpus.load(settings)
    print("\n".join(data.report), flush=True)
    place = Path(folder)
    streams = Streams(data.train, settings.batch, settings.window)
    # Before the first look for devices; on a GPU or TPU it changes nothing.
    jax.config.update("jax_num_cpu_devices", settings.devices or 1)
    setting = {"devices": len(train.use_devices(settings))}
    identity = workdir.claim(place, settings, data)
    print(f"folder: {place}", flush=True)
    with (
        Interruption() as stop,
        Checkpoints(
            place / "checkpoints",
            identity=identity,
            setting=None if settings.elsewhere else setting,
            finite=lambda state: state.params,
        ) as store,
    ):
        board = place / "tensorboard" if settings.tensorboard else None
        metrics = Metrics(place / "metrics.jsonl", board)
        trained = train.train(settings, data, streams, metrics, store, stop)
        result = finish.finish(settings, data, place, trained, metrics, stop.check)
        metrics.close()
    print(report.table(settings, result))
    print(f"learning curve: {place / 'learning_curve.png'}\n\na sample:")
    print((place / "sample.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, FloatingPointError, OSError) as error:
        sys.exit(f"error: {error}")
    except StopRequestedError as error:
        print(f"stopped by {error}: saved; the same command goes on", file=sys.stderr)
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        sys.exit(130)
