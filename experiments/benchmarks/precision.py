"""Errors of single and half precision against double, cell by cell.

    python -m experiments.benchmarks.precision [--steps 100]

Params and inputs are drawn once, rounded to the narrower dtype, and widened again for the
reference in float64, so that the errors are of the arithmetic alone. An error is the largest
absolute difference over the largest absolute value: of the outputs, and of the gradient of a
random sum of them to each array of params, of which the worst counts.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp

import jaxlstm as jl

D = H = 32
B = 4
CELLS = {
    "elman": jl.elman(H),
    "indrnn, tanh": jl.indrnn(H, activation="tanh"),
    "lstm": jl.lstm(H),
    "lstm, peephole": jl.lstm(H, peephole=True),
    "lstm, projection": jl.lstm(H, projection=16),
    "lstm, layer_norm": jl.lstm(H, layer_norm=True),
    "lstm_ablation, cifg": jl.lstm_ablation(H, "cifg"),
    "lstm_1997": jl.lstm_1997(H),
    "gru": jl.gru(H),
    "gru_reset_before": jl.gru_reset_before(H),
    "mgu": jl.mgu(H),
    "janet": jl.janet(H),
    "mogrifier_lstm": jl.mogrifier_lstm(H),
    "hyper_lstm": jl.hyper_lstm(H, hyper=8, embedding=4),
    "slstm": jl.slstm(H, heads=4),
    "mlstm": jl.mlstm(H, heads=4),
    "minlstm": jl.minlstm(H),
    "mingru": jl.mingru(H),
    "sru": jl.sru(H),
}


def errors(cell: jl.Cell, dtype: Any, steps: int) -> tuple[float, float]:
    keys = jax.random.split(jax.random.key(0), 3)
    xs = jax.random.normal(keys[0], (steps, B, D), dtype)
    params = cell.init(keys[1], xs[0])
    seeds = jax.random.normal(keys[2], (steps, B, jl.scan(cell, params, xs)[1].shape[-1]), dtype)

    @jax.jit
    def run(params, xs, seeds):
        ys, pull = jax.vjp(lambda params: jl.scan(cell, params, xs)[1], params)
        return ys, pull(seeds.astype(ys.dtype))[0]

    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs, seeds))
    (ys, gradients), (exact, exact_gradients) = run(params, xs, seeds), run(*wide)
    off = lambda a, e: float(jnp.abs(a.astype(jnp.float64) - e).max() / jnp.abs(e).max())
    return off(ys, exact), max(jax.tree.leaves(jax.tree.map(off, gradients, exact_gradients)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100, help="T")
    steps = parser.parse_args().steps
    jax.config.update("jax_enable_x64", True)
    print(
        f"JAX {jax.__version__}, {jax.devices()[0].device_kind}; T = {steps}, B = {B}, D = H = {H}"
    )
    print("| cell | float32: outputs | gradients | bfloat16: outputs | gradients |")
    print("|---|---|---|---|---|")
    for name, cell in CELLS.items():
        rows = [
            f"{e:.1e}" for dtype in (jnp.float32, jnp.bfloat16) for e in errors(cell, dtype, steps)
        ]
        print(f"| {name} | {' | '.join(rows)} |", flush=True)


if __name__ == "__main__":
    main()
