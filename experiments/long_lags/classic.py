"""The experiments of Hochreiter and Schmidhuber 1997, Neural Computation 9(8), sections 5.2 to 5.6.

In the paper's form: its network and number of weights, its truncated gradient, plain gradient
descent after each single sequence, its rate, biases, and criterion of success. And in today's: an
LSTM of 16 units with forget gates, whose biases remember a whole sequence, the whole gradient,
Adam, sequences in batches; its task, its criterion and its kind of output are the same.
"""

import jax
import numpy as np

from experiments.long_lags.learners import modern, of_1997, of_1997_online
from experiments.long_lags.population import Learner, examine, until_solved
from experiments.long_lags.results import Found, Options, counted
from experiments.long_lags.settings import EXPERIMENTS, Experiment

TESTED = 2560  # sequences, as in the paper


def learner_of(experiment: Experiment, form: str) -> Learner:
    net = experiment.net
    if form == "1997":
        return (of_1997_online if experiment.online else of_1997)(net, experiment.rate)
    longest = jax.eval_shape(experiment.sample, jax.random.key(0)).xs.shape[0]
    return modern(net, units=16, rate=1e-2, batch=16, longest=longest)


def run(name: str, form: str, options: Options) -> Found:
    """One experiment in one form."""
    experiment = EXPERIMENTS[name]
    learner = learner_of(experiment, form)
    seeds = options.seeds or experiment.seeds
    budget = 2_000 if options.quick else 4 * experiment.accept
    budget = options.budget or budget
    every = min(2_000, budget)
    state = until_solved(learner, experiment.sample, experiment.goal, seeds, budget, every=every)
    solved = np.asarray(state.solved)
    key = jax.random.key(1)
    errors = examine(learner, experiment.sample, state.params, TESTED, key)
    wrong = (errors > experiment.goal.bound).sum(1)
    constant = _constant(experiment, key)
    done = solved >= 0
    mean = float(solved[done].mean()) if done.any() else None
    enough = done.mean() >= experiment.least and mean is not None and mean <= experiment.accept
    if experiment.accept_wrong is not None and done.any():
        enough = enough and wrong[done].mean() <= experiment.accept_wrong
    return Found(
        title=experiment.title,
        source=experiment.source,
        paper=_printed(experiment),
        accept=_accepted(experiment),
        ours=f"{counted(solved)}; {_wrong(wrong[done])}" if done.any() else counted(solved),
        floor=f"the best constant: {constant} of {TESTED} wrong",
        passed=bool(enough) if form == "1997" else None,
        seeds=seeds,
        numbers={"solved": solved.tolist(), "wrong": wrong.tolist(), "budget": budget},
    )


def _constant(experiment: Experiment, key: jax.Array) -> int:
    """How many sequences are wrong for the mean of the targets as the output, always."""
    of_all = jax.jit(jax.vmap(lambda key: experiment.sample(key).clean[-1]))
    targets = np.asarray(of_all(jax.random.split(key, TESTED)))
    off = np.abs(targets - targets.mean(0)).max(1)
    return int((off > experiment.goal.bound).sum())


def _printed(experiment: Experiment) -> str:
    wrong = experiment.wrong
    return f"{experiment.printed:,} sequences" + ("" if wrong is None else f"; {wrong} wrong")


def _accepted(experiment: Experiment) -> str:
    most = f"{experiment.least:.0%} of the seeds, mean at most {experiment.accept:,}"
    wrong = experiment.accept_wrong
    return most + ("" if wrong is None else f", at most {wrong} of {TESTED} wrong")


def _wrong(wrong: np.ndarray) -> str:
    return f"{wrong.mean():.1f} of {TESTED} wrong (at most {wrong.max()})"
