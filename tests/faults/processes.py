"""Several real processes that train one model, and what becomes of the others when one is gone."""

import os
import signal
import socket
import time
from pathlib import Path

import jax
import numpy as np

from jaxlstm.train import restoring
from tests.faults.harness import (
    STEPS,
    Outcome,
    battery,
    differing,
    ended,
    expect,
    kill_after,
    language_model,
    seeds,
    start,
    trace,
)
from tests.faults.kills import command, whole

DEADLINE = 10  # seconds that a process may be silent
PATIENCE = 60  # seconds after which one that has not ended counts as hanging


def equal(folder: Path, counts: tuple[int, ...] = (2, 4)) -> Outcome:
    """So many processes beside one, in float64, with the same global batch."""
    text, _, _ = whole()
    folder.mkdir(parents=True)
    plain = ("--dropout=0", "--restart=0")  # what is drawn anew on each device
    alone = folder / "alone"
    code = ended(start(_in_double, *command(alone, text), *plain, out=alone.with_suffix(".txt")))
    expect(code == 0, alone.with_suffix(".txt").read_text()[-900:])
    expected = trace(alone)

    def attempt(count):
        run = folder / f"of{count}"
        codes, said = _together(run, text, count, *plain, target=_in_double)
        expect(codes == [0] * count, codes, said)
        found = trace(run)
        expect(restoring.steps(run / "checkpoints")[-1] == STEPS, "no checkpoint at the end")
        expect(_shapes(found) == _shapes(expected), "another state", said)
        for one, other in zip(expected["metrics"], found["metrics"], strict=True):
            for name in ("train_nats", "valid_nats", "gradient_norm"):
                if name in one:
                    difference = abs(one[name] / other[name] - 1)
                    expect(difference < 1e-10, name, one[name], other[name])
        return f"{count} processes"

    return battery("several processes beside one, losses to 1e-10", counts, attempt)


def gone(folder: Path, count: int) -> Outcome:
    """Of two processes one is killed or stopped: the other ends; then both go on to the end."""
    text, _, _ = whole()
    folder.mkdir(parents=True)
    began = time.perf_counter()
    codes, said = _together(folder / "both", text, 2)
    expect(codes == [0, 0], said)
    seconds, expected = time.perf_counter() - began, trace(folder / "both")
    waits = []

    def attempt(rng):
        run, number = folder / f"run{rng.getrandbits(40)}", rng.randrange(2)
        how = rng.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
        processes = _started(run, text, 2)
        processes[number].join(rng.uniform(0.8, max(1.0, seconds - 1)))
        late = any(p.exitcode is not None for p in processes)
        if processes[number].exitcode is None:
            os.kill(processes[number].pid, how)
        began = time.perf_counter()
        other = ended(processes[1 - number], PATIENCE)
        waits.append(time.perf_counter() - began)
        said = _said(run)
        if how == signal.SIGTERM:
            code = ended(processes[number], PATIENCE)
            late = late or code == other == 0
            early = {code, other} & {-signal.SIGTERM, 1, -signal.SIGABRT}  # before it listened
            expect(late or early or code == other == 75, code, other, said)
        else:
            processes[number].kill()
            processes[number].join()
            expect(late or other not in (0, 75), "exit", other, said)
        codes, said = _together(run, text, 2)
        expect(codes == [0, 0], codes, said)
        found = trace(run)
        expect(found == expected, differing(expected, found))
        return attempt(rng) if late else how.name  # it was over before

    done = battery("two processes, one gone", seeds("gone", count), attempt)
    return done._replace(detail=f"{done.detail}; the other ended after {max(waits):.0f} s at most")


def other(folder: Path, count: int) -> Outcome:
    """Two processes are to train different things; a run of two goes on as one."""
    text, _, _ = whole()
    folder.mkdir(parents=True)

    def attempt(rng):
        run = folder / f"run{rng.getrandbits(40)}"
        apart = rng.choice(["--learning-rate=0.01", "--seed=5", "--dropout=0.3", "--window=8"])
        codes, said = _together(run, text, 2, of_last=(apart,))
        expect(codes == [1, 1], codes, said)
        expect("to train something else" in said and apart[2:6] in said, said)
        expect(not (run / "checkpoints").exists(), "there are checkpoints")
        processes = _started(run, text, 2)
        while not restoring.steps(run / "checkpoints") and processes[0].exitcode is None:
            time.sleep(0.02)
        for process in processes:
            kill_after(process, 0, signal.SIGKILL)
        alone = run.with_suffix(".alone.txt")
        code = ended(start(language_model, *command(run, text), out=alone))
        expect(code == 1 and "--elsewhere true" in alone.read_text(), alone.read_text())
        code = ended(start(language_model, *command(run, text), "--elsewhere=true", out=alone))
        expect(code == 0 and restoring.steps(run / "checkpoints")[-1] == STEPS, alone.read_text())
        return apart.split("=")[0]

    return battery(
        "processes that disagree, and one that goes on for two", seeds("other", count), attempt
    )


def _together(run: Path, text: Path, count: int, *more: str, **how):
    codes = [ended(p, 120) for p in _started(run, text, count, *more, **how)]
    return codes, _said(run)


def _started(run: Path, text: Path, count: int, *more: str, of_last=(), target=language_model):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = (*command(run, text), f"--coordinator=localhost:{port}", f"--processes={count}")
    return [
        start(
            target, *common, f"--process={n}", f"--deadline={DEADLINE}", *more,
            *(of_last if n == count - 1 else ()), out=run.with_suffix(f".{n}.txt"),
        )
        for n in range(count)
    ]  # fmt: skip


def _said(run: Path) -> str:
    return " | ".join(p.read_text()[-500:] for p in run.parent.glob(run.name + ".*.txt"))


def _in_double(*arguments: str) -> None:
    jax.config.update("jax_enable_x64", True)
    language_model(*arguments)


def _shapes(found: dict) -> dict:
    return {name: (a["shape"], np.dtype(a["dtype"])) for name, a in found["arrays"].items()}
