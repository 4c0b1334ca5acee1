"""The implementations of the gated recurrence, and the choice among them.

Each is a module with `supports(update, inputs) -> str | None`, `forward`, `backward` and the
structure `RESIDUAL` of what the latter needs beside the carries, and stands below the one
differentiation rule in `jaxlstm.sweep`.
"""

from types import ModuleType

from jaxlstm.kernels import blocked, native
from jaxlstm.kernels.recurrence import Inputs, Update

IMPLEMENTATIONS: dict[str, ModuleType] = {  # the first that can serves
    "native": native,
    "blocked": blocked,
}


def answers(update: Update, inputs: Inputs) -> dict[str, str | None]:
    """Maps each implementation to None if it can serve, else to the reason why not."""
    return {name: module.supports(update, inputs) for name, module in IMPLEMENTATIONS.items()}


def choose(name: str | None, update: Update, inputs: Inputs) -> str | None:
    """The implementation of that name, or with None the first that can serve, if there is one.

    Raises:
      ValueError: if there is none of that name, or it can't serve.
    """
    reasons = answers(update, inputs)
    if name is None:
        return next((n for n, reason in reasons.items() if reason is None), None)
    if name not in reasons:
        known = ", ".join(map(repr, ["reference", *reasons]))
        raise ValueError(f"implementation: expected one of {known}, got {name!r}")
    if reasons[name] is not None:
        raise ValueError(f"implementation {name!r} can't serve: {reasons[name]}")
    return name
