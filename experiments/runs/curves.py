"""Learning curves of several runs in one picture."""

from collections.abc import Sequence
from pathlib import Path

from experiments.runs.folder import Run
from jaxlstm.interop.arrays import needed


def plot(runs: Sequence[Run], name: str, path: Path) -> list[str]:
    """Draws a field of the metrics of runs against their steps.

    Args:
      runs: to draw, each by the name of its folder.
      name: of the field.
      path: of the picture; its ending says the format: ".png".

    Returns:
      A line for each run that has no such field.

    Raises:
      ImportError: if matplotlib is not installed.
      ValueError: if no run has it.
      OSError: if the picture can't be written.
    """
    there = [(run, run.values(name)) for run in runs]
    if not any(values for _, values in there):
        fields = dict.fromkeys(n for run in runs for line in run.history for n in line)
        names = ", ".join(n for n in fields if n != "step") or "no field at all"
        raise ValueError(f"--field: no run has a number {name!r}; there is {names}")
    needed("matplotlib", "experiments").use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for run, values in there:
        if values:
            style = "o-" if len(values) <= 30 else "-"
            label = str(run.path).replace("$", r"\$")  # or it would be taken for mathematics
            axes.plot(*zip(*values, strict=True), style, lw=1, ms=3, label=label)
    axes.set(xlabel="step", ylabel=name.replace("_", " "))
    axes.legend()
    try:
        figure.savefig(path, dpi=120)
    finally:
        plt.close(figure)
    return [f"{run.path}: has no {name}" for run, values in there if not values]
