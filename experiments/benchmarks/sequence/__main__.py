"""Recurrent layers over whole sequences on the CPU, beside those of other libraries.

    python -m experiments.benchmarks.sequence [--quick] [--rows lstm gru] [--shapes 32,128,128,256]
        [--contenders jaxlstm linen torch] [--rounds 20] [--json FILE] [--plot FILE]

Every contender is a process of its own that lives through all cases and has its turn in every
round, in an order that is drawn anew; a turn is one call, or as many as fill 2 ms, right after
30 ms of others that are not timed, as in a loop that trains. What is shown is the median over the
rounds, after two that do not count. All are float32, with the weights of
one set of our params, and are timed only if their outputs, or loss and gradients to params and
inputs, are those of the first. The loss is the sum of squares of the outputs. Ours are named
`jaxlstm:IMPLEMENTATION`, those that `jaxlstm.explain` lists; with `:vmap` it runs single sequences
under `jax.vmap`, with `:devices` under `jaxlstm.data_parallel`, one virtual CPU device a core, and
with `:checkpoint` keeps the carry of every 512th step alone.

The fraction of the product peak counts the matrix products alone, 2 T B G H (D + H) forward for G
gates, and three times that forward + gradient. Peak memory is the highest resident set during
the first call over the one before it, when weights, inputs and the compiled program were there.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from experiments.benchmarks.sequence import cases, contenders, limit, report
from experiments.benchmarks.sequence.turns import Failed, Processes

LIBRARIES = ["jaxlstm", "jax", "jaxlib", "flax", "dm-haiku", "equinox", "keras", "torch", "numpy"]


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Its name, as far as the system tells it, and how many of its cores may be used."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        name = next((value.strip() for key, _, value in lines if "model name" in key), name)
    return f"{name}, {limit.cores()} cores"


def machine_limits(processes: Processes, quick: bool) -> dict[str, Any]:
    """The bandwidths, and the products' peak by each library that takes part."""
    askable = [name for name in processes if not name.endswith(":devices")]
    one = {"torch" if name == "torch" else "jax": name for name in reversed(askable)}
    size, calls = (1024, 5) if quick else (2048, 20)
    gflops = {}
    for library, name in sorted(one.items()):
        with contextlib.suppress(Failed):  # the cases will show who can't
            gflops[library] = processes[name].ask("product", size=size, calls=calls)["gflops"]
    return {"gflops": gflops, **limit.memory_limits(quick)}


def run_case(processes: Processes, case: cases.Case, rounds: int) -> report.Result:
    """The case by all contenders that are there and have a part in it."""
    ours = contenders.ours(case)
    reasons = {name: contenders.left_out(name, case, ours) for name in processes}
    names = [name for name, reason in reasons.items() if reason is None]
    names.sort(key=lambda name: name != "textbook")  # the one that all are compared to, if there
    return {
        "row": case.row,
        "shape": case.shape,
        "what": case.what,
        "operations": cases.operations(case),
        **processes.measure(names, case, rounds),
        "left_out": {name: reason for name, reason in reasons.items() if reason},
    }


def parse(arguments: list[str] | None) -> tuple[Any, list[cases.Case], list[str]]:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.sequence")
    parser.add_argument("--quick", action="store_true", help="little of it, within a minute")
    parser.add_argument("--rows", nargs="+", help=f"some of {', '.join(cases.ROWS)}")
    parser.add_argument("--shapes", nargs="+", help="B,T,D,H each, for all of the rows")
    parser.add_argument("--contenders", nargs="+", help="by name; jaxlstm for all of ours")
    parser.add_argument("--rounds", type=int, help="turns of each that count; 20, or 5 if quick")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for an answer")
    parser.add_argument("--json", type=Path, help="a file for all that was measured")
    parser.add_argument("--plot", type=Path, help="a file for the ratios by shape")
    given = parser.parse_args(arguments)
    given.rounds = (5 if given.quick else 20) if given.rounds is None else given.rounds
    try:
        if given.rounds < 1:
            raise ValueError(f"rounds: expected a positive number, got {given.rounds}")
        shapes = given.shapes and [cases.shape_of(text) for text in given.shapes]
        chosen = cases.select(given.rows, shapes, given.quick)
        names = contenders.select(given.contenders, chosen, given.quick)
    except ValueError as error:
        parser.error(str(error))
    return given, chosen, names


def main(arguments: list[str] | None = None) -> None:
    given, chosen, names = parse(arguments)
    absent = {name: why for name in names if (why := contenders.missing(name))}
    present = [name for name in names if name not in absent]
    written: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": processor(),
        "versions": versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "rounds": given.rounds,
    }
    print(", ".join(f"{library} {version}" for library, version in written["versions"].items()))
    print(f"{written['device']}, {written['date']}, {given.rounds} rounds\n")
    for name, why in absent.items():
        print(f"- {report.says(name)} left out: {why}")
    results: list[report.Result] = []
    with Processes(present, given.timeout) as processes:
        limits = machine_limits(processes, given.quick)
        print(report.limits_text(limits), flush=True)
        for case in chosen:
            if cases.ROWS[case.row].apart:
                with Processes([n for n in present if n in processes], given.timeout) as others:
                    results.append(run_case(others, case, given.rounds))
            else:
                results.append(run_case(processes, case, given.rounds))
            peak = max(limits["gflops"].values(), default=None)
            print(f"\n### {case}\n\n{report.case_table(results[-1], peak)}", flush=True)
        absent |= processes.failed
    print("\n### In short: times faster than the best JAX peer / Flax Linen / PyTorch\n")
    print(report.summary(results))
    for name, why in processes.failed.items():
        print(f"- {report.says(name)}: {why}")
    written |= {"limits": limits, "left_out": absent, "cases": results}
    if given.json:
        given.json.write_text(json.dumps(written, indent=1))
    if given.plot:
        report.plot(results, given.plot)


if __name__ == "__main__":
    main()
