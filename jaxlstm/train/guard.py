"""Numbers that go wrong: steps whose loss or gradient is not finite, or whose loss leaps.

`judge` and `choose` go into a jitted step: an update that is judged bad is not made. What is to be
done besides is decided by `Policy` on the host, some steps later, as nothing was harmed.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

GOOD, NONFINITE, SPIKE, EXCUSED = 0, 1, 2, 3
ACTIONS = ("skip", "rollback", "stop")
_DECAY = 0.98  # of the running mean and variance of the loss: some fifty steps
_SETTLING = 100  # good steps before a leap can be told from the beginning's


class Guard(NamedTuple):
    """What the steps so far say of the next; a part of the state.

    After a rollback keep the present one, not that of the checkpoint: its `bad` would begin anew
    each time, and no budget ever be used up.
    """

    mean: Array  # () float32: of the loss
    variance: Array  # () float32
    good: Array  # () int32: steps
    bad: Array  # () int32: steps, all of which count against the budget


def initial_guard() -> Guard:
    """A guard before the first step."""
    zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
    return Guard(zero, zero, none, none)


def judge(
    guard: Guard,
    loss: Array,
    *norms: Array,
    spike: float = 0.0,
    excused: Array | bool = False,
) -> tuple[Array, Guard]:
    """Whether a step may be made.

    Args:
      guard: after the steps before.
      loss: () of the step.
      *norms: () each: of the gradient, of the update.
      spike: how many standard deviations a loss may be above the running mean, both over some
        fifty steps; 0 for any number.
      excused: () whether a gradient that is not finite is nothing bad, as of a loss that was
        scaled too much; a loss that is not finite is.

    Returns:
      () int32: GOOD, NONFINITE, SPIKE or EXCUSED; and the guard after the step.
    """
    loss = loss.astype(jnp.float32)
    finite = jnp.isfinite(loss)
    for norm in norms:
        finite &= jnp.isfinite(norm)
    over = loss - guard.mean
    settled = guard.good >= _SETTLING
    leap = settled & (over > spike * jnp.sqrt(guard.variance)) if spike else jnp.zeros((), bool)
    wrong = jnp.where(excused & jnp.isfinite(loss), EXCUSED, NONFINITE)
    verdict = jnp.where(finite, jnp.where(leap, SPIKE, GOOD), wrong).astype(jnp.int32)
    # The mean of the first steps is their plain mean, and so is the variance.
    weight = jnp.maximum(1 - _DECAY, 1 / (guard.good + 1))
    after = Guard(
        guard.mean + weight * over,
        (1 - weight) * (guard.variance + weight * over**2),
        guard.good + 1,
        guard.bad,
    )
    bad = guard.bad + (verdict != EXCUSED).astype(jnp.int32)
    return verdict, choose(verdict, after, guard._replace(bad=bad))


def choose(verdict: Array, new: Any, old: Any) -> Any:
    """The new pytree if the verdict is GOOD, otherwise the old one; typed keys too."""
    return jax.tree.map(lambda n, o: jnp.where(verdict == GOOD, n, o), new, old)


@dataclass(frozen=True)
class Policy:
    """What to do about steps that were not made.

    Attributes:
      nonfinite: `skip` (go on with the next batch), `rollback` (take the newest checkpoint's state,
        but for the guard, which stays as it is, and go on with the next batch, as Chowdhery et al.
        2022, arXiv:2204.02311, section 5.1, do at spikes) or `stop`.
      spike: the same, for a loss that leaps.
      budget: how many bad steps a run may have before it stops, whatever is configured. It is
        never used up where a rollback takes back the guard too.

    Raises:
      ValueError: if there is no such action.
    """

    nonfinite: str = "skip"
    spike: str = "skip"
    budget: int = 20

    def __post_init__(self) -> None:
        for name in ("nonfinite", "spike"):
            if getattr(self, name) not in ACTIONS:
                raise ValueError(f"{name}: expected one of {ACTIONS}, got {getattr(self, name)!r}")

    def action(self, verdicts: Any, bad: int) -> tuple[str, str]:
        """What to do after some steps, and why: the gravest that any of them asks for.

        Args:
          verdicts: of these steps, integers.
          bad: how many steps of the run were bad, with these.

        Returns:
          "", `skip`, `rollback` or `stop`; and the reason in words.
        """
        kinds = [int(v) for v in verdicts]
        asked = [self.nonfinite] * (NONFINITE in kinds) + [self.spike] * (SPIKE in kinds)
        if not asked:
            return "", ""
        reasons = [
            f"{kinds.count(kind)} of {len(kinds)} steps had {what}"
            for kind, what in (
                (NONFINITE, "a loss or gradient that is not finite"),
                (SPIKE, "a loss far above those before"),
            )
            if kind in kinds
        ]
        if bad > self.budget:
            reasons.append(f"{bad} bad steps in all, over the budget of {self.budget}")
            asked.append("stop")
        return max(asked, key=ACTIONS.index), "; ".join(reasons)
