"""The classic long-lag experiments: `python -m experiments.long_lags TASK`, one by one.

`list` names the tasks; `page` writes docs/long_lags.md from what the runs found, or with `--out`
long_lags.md in that folder from what is there.
"""

import argparse
import sys
import time
from pathlib import Path

from experiments.long_lags import (
    classic,
    continual,
    formal,
    grammar,
    music,
    pixels,
    results,
    stress,
    systematicity,
    timing,
)

FORMS = ("1997", "modern")
TASKS = {
    "reber": (grammar.run, FORMS),
    **{name: (classic.run, FORMS) for name in classic.EXPERIMENTS},
    "continual-reber": (continual.run, tuple(continual.FORMS)),
    **{name: (timing.run, tuple(timing.FORMS)) for name in timing.TASKS},
    **{name: (stress.run, stress.FORMS) for name in stress.TASKS},
    **{name: (systematicity.run, systematicity.FORMS) for name in systematicity.TASKS},
    **{name: (music.run, music.FORMS) for name in music.TITLES},
    "jsb-ablations": (music.ablations, ("modern",)),
    **{name: (pixels.run, pixels.FORMS) for name in pixels.TITLES},
    **{name: (formal.run, tuple(formal.CELLS)) for name in formal.TASKS},
}

DATA = " --data FOLDER"  # at the end of the command that is written down

KEEPS = (*stress.TASKS, *pixels.TITLES)
READS = (*systematicity.TASKS, *music.TITLES, "jsb-ablations", *pixels.TITLES)


def _count(text: str) -> int:
    """A number from 1; argparse says what is wrong with others."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text}")
    return int(text)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.long_lags", description=__doc__)
    parser.add_argument("task", choices=[*TASKS, "list", "page"], metavar="TASK")
    parser.add_argument("--form", help="one of those that the task has; all, if not given")
    parser.add_argument("--quick", action="store_true", help="a minute's try; nothing is kept")
    parser.add_argument("--seeds", type=_count, default=0, help="how many networks")
    parser.add_argument(
        "--budget", type=_count, default=0, help="sequences, steps or updates, as the task counts"
    )
    parser.add_argument("--data", default="", help="a folder, of tasks that read any")
    parser.add_argument(
        "--keep", default="", help="a folder, to go on from if killed; of some tasks"
    )
    parser.add_argument(
        "--out", type=Path, help="where the JSON goes; experiments/long_lags/results, if not given"
    )
    given = parser.parse_args(arguments)
    if given.task == "list":
        for name, (_, forms) in TASKS.items():
            print(name, ", ".join(forms))
        return 0
    if given.task == "page":
        order = [(task, form) for task, (_, forms) in TASKS.items() for form in forms]
        found = results.read(given.out or results.FOLDER, order)
        place = given.out / results.PAGE.name if given.out else results.PAGE
        place.write_text(results.page(found), encoding="utf-8")
        return 0
    run, forms = TASKS[given.task]
    if given.form and given.form not in forms:
        parser.error(f"--form: {given.task} has {', '.join(forms)}, got {given.form}")
    if given.data and given.task not in READS:
        parser.error(f"--data: {given.task} reads none; those that do are {', '.join(READS)}")
    if given.keep and given.task not in KEEPS:
        parser.error(f"--keep: {given.task} can't be kept; those that can are {', '.join(KEEPS)}")
    if given.keep and given.quick:
        parser.error("--keep: of a --quick try nothing is kept")
    forms = (given.form,) if given.form else forms
    if not (given.quick or given.out):
        for form in forms:
            known = results.command_of(given.task, form)
            if known and known.removesuffix(DATA) != command(given, form).removesuffix(DATA):
                parser.error(f"--out: there is a result of `{known}`; name a folder for another")
    options = results.Options(given.quick, given.seeds, given.budget, given.data, given.keep)
    code = results.commit()  # whatever is committed while it runs
    for form in forms:
        began = time.monotonic(), time.process_time()
        found = run(given.task, form, options)
        print(
            f"{found.title}, {form}: {found.ours}\n  paper: {found.paper}\n  floor: {found.floor}"
        )
        if not given.quick:
            seconds = time.monotonic() - began[0], time.process_time() - began[1]
            said = command(given, form)
            record = results.record(given.task, form, found, seconds, said, code)
            results.save(record, given.out or results.FOLDER)
    return 0


def command(given: argparse.Namespace, form: str) -> str:
    """What runs one form again, in any place."""
    words = ["python -m experiments.long_lags", given.task, "--form", form]
    words += ["--seeds", str(given.seeds)] if given.seeds else []
    words += ["--budget", str(given.budget)] if given.budget else []
    return " ".join(words) + DATA * bool(given.data)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
