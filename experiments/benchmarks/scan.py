"""One LSTM over a batch of sequences, beside Flax's.

    python -m experiments.benchmarks.scan [--rounds 25] [--json FILE]

Contenders: `jaxlstm.scan` on the batch, the same by `vmap` over single sequences, the
reference (`lax.scan` of the step), and Flax's `nn.RNN(nn.OptimizedLSTMCell)`, all in float32
and time-major, with the same weights, their numbers compared before they are timed. Each is
compiled apart (timed by itself) and then run in turns, one call each a round; the table has
the medians and the ratio to Flax's. Measured results: README.md of this folder.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import jaxlstm as jl

SHAPES = [  # B, T, D, H
    (32, 128, 128, 256),
    (64, 128, 512, 512),
    (20, 35, 200, 200),
    (1, 1024, 64, 128),
    (16, 2048, 32, 64),
    (128, 64, 64, 128),
]


def contenders(
    batch: int, time: int, features: int, hidden: int
) -> tuple[Any, Any, dict[str, Any]]:
    """The weights, the sequences, and functions of them to (T, B, H)."""
    cell = jl.lstm(hidden)
    xs = jax.random.normal(jax.random.key(0), (time, batch, features))
    params = cell.init(jax.random.key(1), xs[0])
    rnn = nn.RNN(nn.OptimizedLSTMCell(hidden), time_major=True)

    def flax_scan(params, xs):
        dense = {}
        for n, gate in enumerate("ifgo"):
            dense[f"i{gate}"] = {"kernel": params.w_x[:, n]}
            dense[f"h{gate}"] = {"kernel": params.w_h[:, n], "bias": params.b[n]}
        return rnn.apply({"params": {"cell": dense}}, xs)

    each = jax.vmap(lambda params, xs: jl.scan(cell, params, xs)[1], (None, 1), 1)
    return (
        params,
        xs,
        {
            "jaxlstm": lambda params, xs: jl.scan(cell, params, xs)[1],
            "jaxlstm, vmap": each,
            "reference": lambda params, xs: jl.scan(cell, params, xs, implementation="reference")[
                1
            ],
            "flax": flax_scan,
        },
    )


def compile_all(functions: dict[str, Any], params: Any, xs: Any, gradient: bool) -> dict[str, Any]:
    """Name to (seconds of compilation, a call that waits for its result)."""
    compiled = {}
    for name, function in functions.items():
        loss = lambda params, xs, function=function: jnp.sum(jnp.square(function(params, xs)))
        run = jax.value_and_grad(loss, (0, 1)) if gradient else function
        began = time.perf_counter()
        run = jax.jit(run).lower(params, xs).compile()
        seconds = time.perf_counter() - began
        compiled[name] = seconds, lambda run=run: jax.block_until_ready(run(params, xs))
    return compiled


def measure(compiled: dict[str, Any], rounds: int) -> dict[str, float]:
    """The median time of a call, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for number in range(rounds + 2):
        for name, (_, call) in compiled.items():
            began = time.perf_counter()
            call()
            if number > 1:
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(t) for name, t in times.items()}


def check_equal(compiled: dict[str, Any]) -> None:
    leaves = {name: jax.tree.leaves(call()) for name, (_, call) in compiled.items()}
    for name, values in leaves.items():
        for a, b in zip(values, leaves["reference"], strict=True):
            np.testing.assert_allclose(
                a, b, rtol=2e-3, atol=2e-3 * float(jnp.abs(b).max()), err_msg=name
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.scan")
    parser.add_argument("--rounds", type=int, default=25, help="timed calls of each contender")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the shapes")
    parser.add_argument("--json", help="a file for the figures")
    given = parser.parse_args()
    device = jax.devices()[0]
    versions = f"jax {jax.__version__}, flax {flax.__version__}"
    print(f"{versions}, {device.device_kind}, {given.rounds} rounds")
    print(
        "| B, T, D, H | what | "
        + " | ".join(
            ["jaxlstm ms", "x Flax", "vmap x native", "reference x Flax", "compile x Flax"]
        )
        + " |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = []
    for shape in SHAPES[: given.shapes]:
        params, xs, functions = contenders(*shape)
        for gradient in (False, True):
            compiled = compile_all(functions, params, xs, gradient)
            check_equal(compiled)
            ms = measure(compiled, given.rounds)
            row = {
                "shape": shape,
                "what": "forward + gradient" if gradient else "forward",
                "ms": ms,
                "compile_s": {name: seconds for name, (seconds, _) in compiled.items()},
            }
            rows.append(row)
            compile_ratio = row["compile_s"]["jaxlstm"] / row["compile_s"]["flax"]
            print(
                f"| {', '.join(map(str, shape))} | {row['what']} | {ms['jaxlstm']:.1f} "
                f"| {ms['flax'] / ms['jaxlstm']:.2f} | {ms['jaxlstm, vmap'] / ms['jaxlstm']:.2f} "
                f"| {ms['flax'] / ms['reference']:.2f} | {compile_ratio:.1f} |",
                flush=True,
            )
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
