"""`python -m experiments.language_model [sample]`."""

import sys
from pathlib import Path

import jax

from jaxlstm.data.text import Streams


def main(arguments: list[str]) -> None:
    from experiments.language_model import config, corpus, report, sample, train, workdir

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
    workdir.claim(place, train.describe(settings, data), settings, data.vocabulary)
    print(f"folder: {place}", flush=True)
    result = train.train(settings, data, streams, place)
    print(report.table(settings, result))
    print(f"learning curve: {place / 'learning_curve.png'}\n\na sample:")
    print((place / "sample.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted: the same command goes on from the last checkpoint")
