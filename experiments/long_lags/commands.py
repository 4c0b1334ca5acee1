"""SCAN: commands in a small English and the actions that they mean (Lake and Baroni 2018).

All commands are made here, from the grammar, and split as in the paper's three experiments. A
command is one phrase, or two that `and` or `after` joins; a phrase is a verb, once, `twice` or
`thrice`; a verb is an action that may have a direction, to turn to once, `opposite` or `around`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

ACTIONS = {"walk": "WALK", "look": "LOOK", "run": "RUN", "jump": "JUMP"}
TURNS = {"left": "LTURN", "right": "RTURN"}
TIMES = {"": 1, " twice": 2, " thrice": 3}
JUMP_EVERY = 10  # of the commands to learn from in the jump split, one in so many is `jump`
LONGEST = 22  # actions of the commands to learn from in the length split
FILES = {
    "simple": ("simple_split/tasks_train_simple.txt", "simple_split/tasks_test_simple.txt"),
    "length": ("length_split/tasks_train_length.txt", "length_split/tasks_test_length.txt"),
    "jump": (
        "add_prim_split/tasks_train_addprim_jump.txt",
        "add_prim_split/tasks_test_addprim_jump.txt",
    ),
}


class Example(NamedTuple):
    command: str
    actions: str


class Split(NamedTuple):
    train: list[Example]
    test: list[Example]


def every() -> list[Example]:
    """All 20,910 commands, each with what it means."""
    phrases = [
        Example(command + times, " ".join([actions] * count))
        for command, actions in _verbs()
        for times, count in TIMES.items()
    ]
    pairs = [(a, b) for a in phrases for b in phrases]
    both = [Example(f"{a.command} and {b.command}", f"{a.actions} {b.actions}") for a, b in pairs]
    after = [
        Example(f"{a.command} after {b.command}", f"{b.actions} {a.actions}") for a, b in pairs
    ]
    return phrases + both + after


def _verbs() -> list[Example]:
    verbs = [Example(*pair) for pair in ACTIONS.items()]
    for word, action in {**ACTIONS, "turn": ""}.items():
        for side, turn in TURNS.items():
            once = f"{turn} {action}".strip()
            verbs.append(Example(f"{word} {side}", once))
            verbs.append(Example(f"{word} opposite {side}", f"{turn} {once}"))
            verbs.append(Example(f"{word} around {side}", " ".join([once] * 4)))
    return verbs


def split(name: str) -> Split:
    """The commands to learn from and the others: `simple` at random, `length`, or `jump`.

    `simple` has four fifths to learn from, `length` those of at most 22 actions, `jump` those
    without this word and, a tenth of all, `jump` alone.
    """
    examples = every()
    if name == "simple":
        order = np.random.default_rng(0).permutation(len(examples))
        shuffled = [examples[n] for n in order]
        return Split(shuffled[: len(examples) * 4 // 5], shuffled[len(examples) * 4 // 5 :])
    if name == "length":
        short = lambda e: len(e.actions.split()) <= LONGEST
        return Split([e for e in examples if short(e)], [e for e in examples if not short(e)])
    others = [e for e in examples if "jump" not in e.command]
    alone = Example("jump", "JUMP")
    jumps = [alone] * (len(others) // (JUMP_EVERY - 1))
    return Split(others + jumps, [e for e in examples if "jump" in e.command and e != alone])


def read(folder: Path, name: str) -> Split:
    """The same from the files that the authors publish, in the folder of their repository."""
    parts = []
    for path in (folder / file for file in FILES[name]):
        if not path.is_file():
            raise ValueError(
                f"--data: expected the folder of SCAN, with {path}, which is not there"
            )
        parts.append([_parsed(line, path) for line in path.read_text().splitlines()])
    return Split(*parts)


def _parsed(line: str, path: Path) -> Example:
    command, found, actions = line.removeprefix("IN: ").partition(" OUT: ")
    if not (found and line.startswith("IN: ")):
        raise ValueError(f"{path}: expected lines 'IN: command OUT: actions', got {line!r}")
    words = {f"I_{a}": a for a in ACTIONS.values()} | {
        "I_TURN_LEFT": "LTURN",
        "I_TURN_RIGHT": "RTURN",
    }
    unknown = sorted(set(actions.split()) - set(words))
    if unknown:
        raise ValueError(f"{path}: expected actions {', '.join(words)}, got {unknown[0]}")
    return Example(command, " ".join(words[a] for a in actions.split()))
