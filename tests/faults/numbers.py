"""Numbers that go wrong: a poisoned symbol spoils the loss, the gradient or the carry of a run."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.data.text import Vocabulary
from jaxlstm.train import guard, manifest, restoring
from tests.faults.harness import (
    LANES,
    SMALL,
    STEPS,
    TEXT,
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

POISON = "☠"
KINDS = ("loss", "endless loss", "gradient", "carry", "spike")


def wrong(folder: Path, count: int) -> Outcome:
    """Runs over a text with a poisoned symbol here and there, and what is configured for it."""
    folder.mkdir(parents=True)
    (folder / "held_out.py").write_text(TEXT[:2000], encoding="utf-8")

    def attempt(rng):
        kind, action = rng.choice(KINDS), rng.choice(["skip", "rollback", "stop", "budget"])
        run = folder / f"run{rng.getrandbits(40)}"
        text, out = run.with_suffix(".py"), run.with_suffix(".txt")
        # Four streams with windows of 16: a symbol that far in is in the window of that step.
        length = len(TEXT) // 4
        steps = sorted(rng.sample(range(STEPS // 2, STEPS - 4), 3))
        symbols = list(TEXT)
        for step in steps:
            symbols[rng.randrange(4) * length + step * 16 + rng.randrange(1, 15)] = POISON
        text.write_text("".join(symbols), encoding="utf-8")
        held_out = folder / "held_out.py"
        policy = "skip" if action == "budget" else action
        command = [
            f"--train={text}", f"--valid={held_out}", f"--test={held_out}", f"--workdir={run}",
            *SMALL, f"--on-nonfinite={policy}", f"--on-spike={policy}", "--spike=20",
            f"--budget={2 if action == 'budget' else 9}",
        ]  # fmt: skip
        code = ended(start(_poisoned, kind, *command, out=out))
        said = out.read_text()
        events = [line for line in _lines(run) if "event" in line]
        expect(events, kind, action, "no event in the metrics", said[-900:])
        if action in ("skip", "rollback"):
            expect(code == 0, kind, action, "exit", code, said[-900:])
            expect({e["event"] for e in events} == {action}, kind, action, events)
            expect(sum(x.get("not_made", 0) for x in _lines(run)) == 3, kind, action, "not 3 steps")
        else:
            expect(code == 1 and "Traceback" not in said, kind, action, "exit", code, said[-900:])
            expect(events[-1]["event"] == "stop", kind, action, events)
        _finite(run)
        if action in ("skip", "rollback") and rng.random() < 0.5:
            again = run.with_name(run.name + "again")
            command = [x.replace(f"workdir={run}", f"workdir={again}") for x in command]
            process = start(_poisoned, kind, *command, out=out)
            kill_after(process, rng.uniform(0.5, 3), 9)
            expect(ended(start(_poisoned, kind, *command, out=out)) == 0, kind, action, "again")
            one, other = trace(run), trace(again)
            expect(one == other, kind, action, "killed on the way:", differing(one, other))
        return action

    return battery("not a number, endless, spikes", seeds("numbers", count), attempt, LANES)


def _poisoned(kind: str, *arguments: str) -> None:
    """In a process of its own: the command, with a network that the symbol spoils."""
    from experiments.language_model import model

    losses = model.losses
    (text,) = [a.removeprefix("--train=") for a in arguments if a.startswith("--train=")]
    number = list(Vocabulary.build(Path(text).read_text(encoding="utf-8")).symbols).index(POISON)

    def spoiled(config, params, carry, tokens, targets, key):
        after, nats, smooth = losses(config, params, carry, tokens, targets, key)
        here = (tokens == number).any()
        add = lambda value, a: a + jnp.where(here, jnp.asarray(value, a.dtype), 0)
        if kind in ("loss", "endless loss", "spike"):
            value = {"loss": np.nan, "endless loss": np.inf, "spike": 50.0}[kind]
            nats, smooth = add(value, nats), add(value, smooth)
        elif kind == "gradient":  # the root's slope at 0 is infinite, its value is not
            inside = jnp.where(here, 0 * params.b_out.sum(), 1)
            smooth = smooth + jnp.where(here, jnp.sqrt(inside), 0)
        else:
            after = jax.tree.map(lambda c: add(np.nan, c), after)
        return after, nats, smooth

    model.losses = spoiled
    guard._SETTLING = 10  # these runs are short
    language_model(*arguments)


def _lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _finite(run: Path) -> None:
    """Whether the newest checkpoint is finite, by reading its numbers plainly."""
    checkpoints = run / "checkpoints"
    place = checkpoints / str(restoring.steps(checkpoints)[-1])
    for name, entry in manifest.read(place / "manifest.json")["arrays"].items():
        # The best score before the first one is infinite.
        if entry["dtype"] == "float32" and name != "plateau.best_value":
            (file,) = [p for p in (place / "arrays" / name).iterdir() if p.name != ".zarray"]
            expect(np.isfinite(np.fromfile(file, np.float32)).all(), name, "is not finite")
