"""What a run shows: numbers in the units of the field, and a picture."""

import json
import math
from pathlib import Path
from typing import Any

from experiments.language_model.config import Config
from jaxlstm.interop.arrays import needed
from jaxlstm.train import distributed
from jaxlstm.train.files import replace


def say(*lines: str) -> None:
    """Prints, in one of the processes."""
    if distributed.leads():
        print(*lines, flush=True)


def summary(config: Config, nats: float) -> dict[str, float]:
    """Nats a symbol, and bits a character or the perplexity."""
    if config.level == "char":
        return {"nats": nats, "bits_per_character": nats / math.log(2)}
    return {"nats": nats, "perplexity": math.exp(nats)}


def write_json(path: Path, content: dict[str, Any]) -> None:
    replace(path, (json.dumps(content, indent=1) + "\n").encode())


def table(config: Config, result: dict[str, Any]) -> str:
    unit = "bits_per_character" if config.level == "char" else "perplexity"
    name = unit.replace("_", " ")
    same = " (the same text)" if result["valid_is_test"] else ""
    return "\n".join(
        [
            f"test   {result['test'][unit]:8.3f} {name}, {result['test']['nats']:.4f} nats",
            f"valid  {result['valid'][unit]:8.3f} {name}{same}",
            f"floor  {result['floor'][unit]:8.3f} {name}, {result['floor']['model']} on it",
            f"{result['steps']:,} steps in {result['seconds']:,.0f} s, "
            f"{result['tokens_per_second']:,} symbols a second, {result['params']:,} params",
        ]
    )


def learning_curve(
    path: Path, lines: list[dict[str, Any]], result: dict[str, Any], config: Config
) -> None:
    """Training and validation loss against steps, with the floor, as a PNG."""
    needed("matplotlib", "experiments").use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    lines = [x for x in lines if "event" not in x]
    axes.plot([x["step"] for x in lines], [x["train_nats"] for x in lines], lw=1, label="training")
    watched = [x for x in lines if "valid_nats" in x and x["step"] < result["steps"]]
    steps = [x["step"] for x in watched] + [result["steps"]]
    axes.plot(
        steps, [x["valid_nats"] for x in watched] + [result["valid"]["nats"]], "o-", label="valid"
    )
    axes.axhline(
        result["floor"]["nats"], ls="--", color="gray", label=f"floor: {result['floor']['model']}"
    )
    axes.set(xlabel="step", ylabel="nats a " + {"char": "character", "word": "word"}[config.level])
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.6 * result["floor"]["nats"]))
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
