"""The experiments of Hochreiter and Schmidhuber 1997, Neural Computation 9(8), sections 5.2 to 5.6.

    python -m experiments.long_lags adding-100 --form 1997

In the paper's form: its network and number of weights, its truncated gradient, plain gradient
descent after each single sequence, its rate, biases, and criterion of success. And in today's: an
LSTM of 16 units with forget gates, whose biases remember a whole sequence, the whole gradient,
Adam, sequences in batches; its task, its criterion and its kind of output are the same. The
settings of each task are in `settings.py`.

Result, of each in docs/long_lags.md: in the paper's form all networks succeed, by at most twice its
sequences, in 2c at a lag of 100, 3a to 3c, 4 at 100 steps, 5 and 6a; half of them in 6b; none in
2a, 2b, 2c at a lag of 1000 and 4 at 500 steps. In today's all do, in 4 to 30 % of the sequences
where both do, but for 2a and 2b.
"""

import jax
import numpy as np

from experiments.long_lags.learners import modern, of_1997, of_1997_online
from experiments.long_lags.population import Learner, examine, until_solved
from experiments.long_lags.results import Found, Options, at_least, counted
from experiments.long_lags.settings import EXPERIMENTS, Experiment

TESTED = 2560  # sequences, as in the paper
KEY = jax.random.key(1)  # of what is tested
UNITS, RATE, BATCH = 16, 1e-2, 16  # of today's form


def learner_of(experiment: Experiment, form: str) -> Learner:
    net = experiment.net
    if form == "1997":
        return (of_1997_online if experiment.online else of_1997)(net, experiment.rate)
    longest = jax.eval_shape(experiment.sample, jax.random.key(0)).xs.shape[0]
    return modern(net, units=UNITS, rate=RATE, batch=BATCH, longest=longest)


def run(name: str, form: str, options: Options) -> Found:
    """One experiment in one form."""
    experiment = EXPERIMENTS[name]
    learner = learner_of(experiment, form)
    seeds = options.seeds or experiment.seeds
    least = max(2_000, experiment.goal.count)  # before, none can have succeeded
    budget = at_least(options, least, 4 * experiment.accept, "sequences")
    state = until_solved(learner, experiment.sample, experiment.goal, seeds, budget)
    solved = np.asarray(state.solved)
    errors = examine(learner, experiment.sample, state.params, TESTED, KEY)
    wrong = (errors > experiment.goal.bound).sum(1)
    done = solved >= 0
    mean = float(solved[done].mean()) if done.any() else None
    enough = done.mean() >= experiment.least and mean is not None and mean <= experiment.accept
    if experiment.accept_wrong is not None and done.any():
        enough = enough and wrong[done].mean() <= experiment.accept_wrong
    return Found(
        **said(experiment, form),
        ours=f"{counted(solved)}; {_wrong(wrong[done])}" if done.any() else counted(solved),
        passed=bool(enough) if form == "1997" else None,
        seeds=seeds,
        numbers={"solved": solved.tolist(), "wrong": wrong.tolist(), "budget": budget},
    )


def said(experiment: Experiment, form: str) -> dict[str, str]:
    """What a row says of the experiment before any training."""
    table = experiment.source.split(",")[0]
    today = f"{table}; today's: {UNITS} units, Adam at {RATE}, batches of {BATCH}"
    return {
        "title": experiment.title,
        "source": experiment.source if form == "1997" else today,
        "paper": _printed(experiment),
        "accept": _accepted(experiment),
        "floor": f"the best constant: {constant(experiment)} of {TESTED} wrong",
    }


def constant(experiment: Experiment) -> int:
    """How many sequences are wrong for the best of constant outputs: the mean, or some target."""
    of_all = jax.jit(jax.vmap(lambda key: experiment.sample(key).clean[-1]))
    targets = np.asarray(of_all(jax.random.split(KEY, TESTED)))
    values = np.unique(targets, axis=0)
    tried = [targets.mean(0), *values[:: max(1, len(values) // 500)]]
    return min(int((np.abs(targets - v).max(1) > experiment.goal.bound).sum()) for v in tried)


def _printed(experiment: Experiment) -> str:
    wrong = experiment.wrong
    return f"{experiment.printed:,} sequences" + ("" if wrong is None else f"; {wrong} wrong")


def _accepted(experiment: Experiment) -> str:
    most = f"{experiment.least:.0%} of the seeds, mean at most {experiment.accept:,}"
    wrong = experiment.accept_wrong
    return most + ("" if wrong is None else f", in the mean at most {wrong} of {TESTED} wrong")


def _wrong(wrong: np.ndarray) -> str:
    return f"{wrong.mean():.1f} of {TESTED} wrong (at most {wrong.max()})"
