"""The end of a run: whole held-out texts, the floor, a picture and a sample."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.language_model import ngram
from experiments.language_model.config import Config
from experiments.language_model.corpus import Data
from experiments.language_model.report import learning_curve, say, summary, write_json
from experiments.language_model.sample import sample
from experiments.language_model.step import evaluator
from experiments.language_model.train import Trained
from jaxlstm.train import distributed
from jaxlstm.train.files import replace
from jaxlstm.train.metrics import Metrics


def finish(
    config: Config,
    data: Data,
    folder: Path,
    trained: Trained,
    metrics: Metrics,
    check: Callable[[], Any],
) -> dict[str, Any]:
    """What `metrics.json` holds, written there, beside the picture and the sample."""
    say("evaluating over the whole held-out texts")
    params = trained.params
    evaluate = evaluator(config, check)
    test = evaluate(params, data.test)
    same = np.array_equal(data.test, data.valid)
    valid = test if same else evaluate(params, data.valid)
    size = len(data.vocabulary)
    floors = {
        name: ngram.cross_entropies(data.train, tokens, size, config.ngram_order)
        for name, tokens in (("valid", data.valid), ("test", data.test))
    }
    order = int(np.argmin(floors["valid"]))
    step, seconds = trained.step, trained.seconds
    result = {
        "test": summary(config, test),
        "valid": summary(config, valid),
        "floor": {
            "model": f"Witten-Bell {order + 1}-gram",
            **summary(config, floors["test"][order]),
        },
        "seconds": round(seconds, 1),
        "tokens_per_second": round(step * config.batch * config.window / seconds) if seconds else 0,
        "steps": step,
        "params": sum(a.size for a in jax.tree.leaves(params)),
        "valid_is_test": same,
    }
    if not distributed.leads():
        return result
    check()
    text = "".join(
        sample(config, data.vocabulary, params, "\n", config.sample_length, seed=config.seed)
    )
    replace(folder / "sample.txt", text.encode())
    write_json(folder / "metrics.json", result)
    learning_curve(folder / "learning_curve.png", metrics.lines(), result, config)
    return result
