"""`python -m experiments.runs list | show | plot`."""

import argparse
import os
import sys
from pathlib import Path

from experiments.runs import curves, folder, tables


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.runs", description="Look at runs; nothing of them is changed."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    to_list = commands.add_parser("list", help="a table of the runs in a folder")
    to_list.add_argument("folder", nargs="?", type=Path, default=Path("runs"), metavar="FOLDER")
    to_show = commands.add_parser("show", help="config, history, events, checkpoints of one")
    to_show.add_argument("run", type=Path, metavar="RUN", help="its folder")
    to_plot = commands.add_parser("plot", help="learning curves of several in one picture")
    to_plot.add_argument("run", nargs="+", type=Path, metavar="RUN", help="their folders")
    to_plot.add_argument("--field", default=folder.TRAIN, help="of the metrics, %(default)s")
    to_plot.add_argument("--out", type=Path, default=Path("curves.png"), help="%(default)s")
    given = parser.parse_args(arguments)
    if given.command == "list":
        list_runs(given.folder)
    elif given.command == "show":
        run = folder.read(given.run)
        print("\n".join([tables.one(run), *run.complaints]))
    else:
        runs = [folder.read(path) for path in given.run]
        without = curves.plot(runs, given.field, given.out)
        complaints = [line for run in runs for line in run.complaints]
        print("\n".join([f"written: {given.out}", *without, *complaints]))


def list_runs(place: Path) -> None:
    if not place.is_dir():
        raise ValueError(f"{place}: no such folder")
    paths, lines = folder.find(place)
    runs = []
    for path in paths:
        try:
            runs.append(folder.read(path))
        except (ValueError, OSError) as error:
            lines.append(str(error))
        else:
            lines += runs[-1].complaints
    print("\n".join([*([tables.several(runs)] if runs else []), *lines]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # `head` has seen enough; nothing is to be flushed at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
