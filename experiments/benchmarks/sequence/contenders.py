"""Who takes part in which rows, and what each needs."""

import importlib.util
from typing import Any, NamedTuple

from experiments.benchmarks.sequence.cases import Case, layer_of, space


class Peer(NamedTuple):
    says: str
    library: str | None  # that has to be installed
    rows: tuple[str, ...]


SEQUENCES, CELLS = ("lstm", "compile"), ("gru", "elman", "janet", "convlstm")
PEERS = {
    "linen": Peer(
        "Flax Linen",
        "flax",
        (*SEQUENCES, "step", *CELLS, "lengths", "bidirectional", "layers", "memory"),
    ),
    "nnx": Peer("Flax NNX", "flax", (*SEQUENCES, "step")),
    "haiku": Peer("Haiku", "haiku", (*SEQUENCES, "step")),
    "equinox": Peer("Equinox", "equinox", (*SEQUENCES, "step", "gru")),
    "keras": Peer("Keras", "keras", (*SEQUENCES, "gru", "lengths", "bidirectional", "layers")),
    "textbook": Peer(
        "textbook scan",
        None,
        (*SEQUENCES, "step", "gru", "peephole", "layer_norm", "lengths", "memory"),
    ),
    "torch": Peer(
        "PyTorch",
        "torch",
        ("lstm", "step", "gru", "lengths", "bidirectional", "layers", "memory"),
    ),
}
OURS = "jaxlstm"
QUICK = ("linen", "textbook", "torch")


def explained(case: Case) -> dict[str, str | None]:
    """Our implementations of the case's cell, to the reason why one can't serve it, or None."""
    import jax
    import jax.numpy as jnp

    import jaxlstm as jl

    batch, time, features, hidden = case.shape
    cell = jl.lstm(hidden) if case.row in ("bidirectional", "layers") else layer_of(case)
    xs = jax.ShapeDtypeStruct((time, batch, *space(case), features), jnp.float32)
    params = jax.eval_shape(cell.init, jax.random.key(0), xs)
    return jl.explain(cell, params, xs)


def ours(case: Case, quick: bool = False) -> dict[str, str | None]:
    """Our contenders at a case, the default implementation first, to the reason why not."""
    if case.row == "step":
        steps = {f"{OURS}:step": None, f"{OURS}:step:donated": None}
        return steps | {f"{OURS}:stream:{name}": why for name, why in explained(case).items()}
    found: dict[str, str | None] = {}
    for name, reason in explained(case).items():
        if quick and name == "reference":
            continue
        found[f"{OURS}:{name}"] = reason
        if case.row == "memory":
            found[f"{OURS}:{name}:checkpoint"] = reason
        if name != "reference" and case.row != "compile" and not quick:
            alone = "a batch of one" if case.shape[0] == 1 else None
            found[f"{OURS}:{name}:vmap"] = reason
            found[f"{OURS}:{name}:devices"] = reason or alone
    return found


def known(cases: list[Case], quick: bool = False) -> list[str]:
    """All contenders of these cases, peers first."""
    found = [name for name in PEERS if not quick or name in QUICK]
    for case in cases:
        found += [name for name in ours(case, quick) if name not in found]
    return found


def select(names: list[str] | None, cases: list[Case], quick: bool = False) -> list[str]:
    """The contenders of these names; all for None, all of ours for "jaxlstm".

    Raises:
      ValueError: if there is none of a name.
    """
    if names is None:
        return known(cases, quick)
    everyone, chosen = known(cases), []
    for name in names:
        found = [n for n in everyone if n == name or (name == OURS and n.startswith(OURS))]
        if not found:
            listed = ", ".join([OURS, *everyone])
            raise ValueError(f"contenders: expected some of {listed}, got {name}")
        chosen += [n for n in found if n not in chosen]
    return chosen


def missing(name: str) -> str | None:
    """Which library is missing for a contender, or None."""
    library = None if name.startswith(OURS) else PEERS[name].library
    gone = library is not None and importlib.util.find_spec(library) is None
    return f"{library} is not installed" if gone else None


def left_out(name: str, case: Case, ours_here: dict[str, str | None]) -> str | None:
    """Why a contender has no part in a case; an empty text where nobody would expect it."""
    if name.startswith(OURS):
        return ours_here.get(name, "")
    return None if case.row in PEERS[name].rows else ""


def is_jax_peer(name: str) -> bool:
    return name in PEERS and name != "torch"


def module_and_variant(name: str) -> tuple[str, str]:
    """The module of `peers` that builds a contender, and what it is told."""
    first, _, variant = name.partition(":")
    return ("ours" if first == OURS else first), variant


def environment(name: str, cores: int) -> dict[str, Any]:
    """What the process of a contender is to have set before it imports anything."""
    own = {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "0",
        "JAX_ENABLE_COMPILATION_CACHE": "0",
        "KERAS_BACKEND": "jax",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": str(cores),
    }
    return own | {"JAX_NUM_CPU_DEVICES": str(cores) if name.endswith(":devices") else "1"}
