"""What a run is made of: the fields, the presets and the command line."""

import argparse
import dataclasses
from dataclasses import dataclass
from typing import Any

from jaxlstm.train.guard import ACTIONS


def option(default: Any, explanation: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": explanation})


@dataclass(frozen=True)
class Config:
    # data
    corpus: str = option(
        "stdlib", "stdlib (the source of this Python's library) or tinyshakespeare"
    )
    train: str = option("", "a file to train on, instead of a corpus; UTF-8")
    valid: str = option("", "a file to watch; with --train alone, the next-to-last twentieth of it")
    test: str = option("", "a file to test on; with --train alone, the last twentieth of it")
    cache: str = option("", "folder of downloaded corpora; default: the user's cache folder")
    train_limit: int = option(0, "symbols of training text to use at most; 0: all")
    held_out_limit: int = option(0, "symbols of each held-out text to use at most; 0: all")
    level: str = option("char", "char or word")
    vocabulary: int = option(10_000, "size of a word vocabulary at most")
    # model
    cell: str = option(
        "lstm", "lstm, peephole, gru, elman, or MODULE:NAME, which makes a Cell of so many units"
    )
    layers: int = option(1, "recurrent layers")
    hidden: int = option(512, "units in each layer")
    embedding: int = option(128, "size of the symbols' embedding")
    dropout: float = option(0.1, "dropped of what goes into each layer and out of the last")
    embedding_dropout: bool = option(True, "whether dropout applies to the embedding too")
    weight_drop: float = option(0.0, "dropped of each layer's recurrent weights, anew each window")
    label_smoothing: float = option(0.0, "of each target's weight spread over all symbols")
    uniform: float = option(0.0, "all params from U(-a, a) with this a; 0: Glorot and orthogonal")
    # optimization
    optimizer: str = option("adamw", "adamw, sgd or ntasgd (averaged once valid gets worse)")
    learning_rate: float = option(3e-3, "of the loss a symbol; for sgd of the sum over a window")
    schedule: str = option(
        "linear",
        "linear (to zero over all steps), epochs (flat, then a decay), plateau (a decay when valid "
        "does not get better) or constant",
    )
    warmup: int = option(50, "steps of linear warm-up, with the linear schedule")
    flat_epochs: int = option(4, "epochs at full rate, with the epochs schedule")
    decay: float = option(0.5, "factor of the rate each epoch after these, or at a plateau")
    plateau: int = option(2, "evaluations without a better one, and the rate decays")
    patience: int = option(0, "evaluations without a better one, and training ends; 0: never")
    nonmonotone: int = option(5, "of ntasgd: the newest evaluations that do not count")
    weight_decay: float = option(0.01, "AdamW's decoupled weight decay")
    beta2: float = option(0.99, "AdamW's decay of the mean square")
    clip: float = option(1.0, "largest norm of the gradient of all params")
    accumulate: int = option(1, "windows to an update of the params, their gradients averaged")
    precision: str = option("float32", "of the network: float32, bfloat16 or float16")
    begin_with: str = option("", "folder of a run whose params and vocabulary to begin with")
    batch: int = option(32, "streams of text side by side")
    window: int = option(64, "steps of truncated back-propagation through time")
    restart: float = option(0.02, "chance of each stream to begin a window from the initial carry")
    epochs: float = option(1.0, "passes over the training text, unless --steps is given")
    steps: int = option(0, "windows to train on; 0: by --epochs")
    seed: int = option(0, "of the initial params and the dropout")
    devices: int = option(
        0,
        "devices of each process to split the batch over; 0: all, a CPU counting as one",
    )
    # several processes
    distributed: bool = option(False, "join the processes that the cluster's launcher started")
    coordinator: str = option("", "host:port of process 0, where no launcher tells")
    processes: int = option(0, "how many processes there are, where no launcher tells")
    process: int = option(-1, "which one this is, from 0, where no launcher tells")
    deadline: int = option(100, "seconds after which a process that is silent counts as dead")
    # watching
    log_every: int = option(20, "steps between lines of metrics.jsonl")
    watch_every: int = option(0, "steps between evaluations on the valid text; 0: a tenth of all")
    watch_symbols: int = option(20_000, "of the valid text in those; the last one is over all")
    checkpoint_seconds: float = option(30.0, "time between checkpoints")
    checkpoint_steps: int = option(0, "steps between checkpoints, besides; 0: none")
    on_save_error: str = option("stop", "stop or continue, when a checkpoint can't be written")
    tensorboard: bool = option(False, "whether to write the curves for TensorBoard too")
    elsewhere: bool = option(
        False, "go on with another number or kind of devices, or other versions: not bit for bit"
    )
    # numbers that go wrong
    on_nonfinite: str = option("skip", "skip, rollback or stop, at a loss or gradient not finite")
    on_spike: str = option("skip", "skip, rollback or stop, at a loss that leaps")
    spike: float = option(0.0, "standard deviations above the running mean that are a leap; 0: off")
    budget: int = option(20, "steps that may go wrong before the run stops")
    ngram_order: int = option(7, "largest order of the n-gram floor; the best on valid is used")
    sample_length: int = option(400, "symbols of the sample at the end")


FREE = {
    "begin_with",  # its params are
    "cache",
    "checkpoint_seconds",
    "checkpoint_steps",
    "on_save_error",
    "tensorboard",
    "elsewhere",
    "distributed",
    "coordinator",
    "processes",
    "process",
    "deadline",
    "devices",  # how many there are is a part of each checkpoint
    "budget",
    "sample_length",
}  # may change between a run and its resumption

OF_ONE = {"begin_with", "cache", "coordinator", "process"}  # may differ between processes

# Zaremba, Sutskever and Vinyals 2014, arXiv:1409.2329, section 4.1, "non-regularized":
# 2 x 200, U(-0.1, 0.1), 20 steps, 13 epochs, rate 1 halved after each epoch past the 4th.
_ZAREMBA_SMALL = Config(
    level="word",
    layers=2,
    hidden=200,
    embedding=200,
    dropout=0.0,
    restart=0.0,
    uniform=0.1,
    optimizer="sgd",
    learning_rate=1.0,
    schedule="epochs",
    flat_epochs=4,
    decay=0.5,
    clip=5.0,
    batch=20,
    window=20,
    epochs=13,
    ngram_order=4,
    sample_length=100,
)

# Measured results: README.md beside this file.
PRESETS: dict[str, Config] = {
    # A character model that is done in minutes; `python -m experiments.language_model`.
    "demo": Config(train_limit=2_000_000, held_out_limit=60_000, steps=1500),
    # Tiny Shakespeare in five minutes; `--preset char-small --corpus tinyshakespeare`.
    "char-small": Config(dropout=0.2, steps=2900),
    # A good character model in an hour; `--preset char --corpus tinyshakespeare`.
    "char": Config(layers=2, dropout=0.4, weight_drop=0.2, label_smoothing=0.04, steps=10_000),
    "zaremba-small": _ZAREMBA_SMALL,
    # The same paper, "medium regularized": 2 x 650, U(-0.05, 0.05), dropout 0.5, 35 steps,
    # 39 epochs, rate 1 divided by 1.2 after each epoch past the 6th.
    "zaremba-medium": dataclasses.replace(
        _ZAREMBA_SMALL,
        hidden=650,
        embedding=650,
        dropout=0.5,
        uniform=0.05,
        flat_epochs=6,
        decay=1 / 1.2,
        window=35,
        epochs=39,
    ),
}

# `--quick`: enough to see it work, and for its tests.
QUICK = {
    "train_limit": 50_000, "held_out_limit": 5_000, "hidden": 32, "embedding": 16, "batch": 4,
    "window": 16, "steps": 60, "warmup": 5, "watch_every": 20, "log_every": 5, "ngram_order": 3,
    "sample_length": 20,
}  # fmt: skip

CHOICES = {
    "corpus": ("stdlib", "tinyshakespeare"),
    "level": ("char", "word"),
    "optimizer": ("adamw", "sgd", "ntasgd"),
    "schedule": ("linear", "epochs", "plateau", "constant"),
    "precision": ("float32", "bfloat16", "float16"),
    "on_save_error": ("stop", "continue"),
    "on_nonfinite": ACTIONS,
    "on_spike": ACTIONS,
}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text.lower() == "true"


def parse(arguments: list[str]) -> tuple[Config, str]:
    """The config and the working folder that a command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.language_model",
        description="Train a recurrent language model; the same command goes on where it stopped. "
        "'python -m experiments.language_model sample --help': text from a trained one.",
    )
    parser.add_argument(
        "--preset", choices=PRESETS, default="demo", help="fields' values to begin with"
    )
    parser.add_argument(
        "--workdir", default="", help="folder of the run; default: runs/PRESET-TEXT"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a small network and few steps: within a minute"
    )
    for field in dataclasses.fields(Config):
        kind = _truth if field.type is bool else field.type
        default = "; default: of the preset" if field.default != "" else ""
        parser.add_argument(
            flag(field.name),
            type=kind,
            choices=CHOICES.get(field.name),
            metavar=None
            if field.name in CHOICES
            else "TRUTH"
            if field.type is bool
            else kind.__name__.upper(),
            help=field.metadata["help"] + default,
        )
    given = {
        name: value
        for name, value in vars(parser.parse_args(arguments)).items()
        if value is not None
    }
    preset, workdir, quick = (given.pop(name) for name in ("preset", "workdir", "quick"))
    config = dataclasses.replace(PRESETS[preset], **{**(QUICK if quick else {}), **given})
    check(config)
    text = "own" if config.train else config.corpus
    return config, workdir or f"runs/{preset}-{text}" + "-quick" * quick


def check(config: Config) -> None:
    """Raises ValueError if a field has no sensible value."""
    at_least = {
        "vocabulary": 2, "layers": 1, "hidden": 1, "embedding": 1, "batch": 1, "window": 1,
        "log_every": 1, "ngram_order": 1, "steps": 0, "warmup": 0, "devices": 0, "train_limit": 0,
        "held_out_limit": 0, "watch_every": 0, "watch_symbols": 2, "sample_length": 0,
        "checkpoint_steps": 0, "processes": 0, "process": -1, "deadline": 1, "spike": 0,
        "budget": 0, "plateau": 0, "patience": 0, "nonmonotone": 0, "accumulate": 1,
    }  # fmt: skip
    for name, least in at_least.items():
        if getattr(config, name) < least:
            raise ValueError(
                f"{flag(name)}: expected at least {least}, got {getattr(config, name)}"
            )
    for name in ("dropout", "weight_drop", "label_smoothing", "restart"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(
                f"{flag(name)}: expected a number in [0, 1), got {getattr(config, name)}"
            )
    if (config.valid or config.test) and not config.train:
        raise ValueError("--valid and --test go with --train")
    if bool(config.valid) != bool(config.test):
        raise ValueError("--valid and --test: expected both or neither")
    given = [bool(config.coordinator), config.processes > 0, config.process >= 0]
    if any(given) and not all(given):
        raise ValueError("--coordinator, --processes and --process: expected all three or none")
    if config.steps == 0 and config.epochs <= 0:
        raise ValueError(f"--epochs: expected more than 0, got {config.epochs}")
