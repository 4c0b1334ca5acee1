"""Peak memory of the gradient of a long sequence, with and without checkpoints.

    python -m experiments.benchmarks.memory [--steps 100000] [--hidden 128]

Each case runs in a process of its own. Its memory is the largest resident set of the process
during the gradient, compiled and run, less what was resident before, with inputs and params.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

CASES = ["none", "sqrt", "1000"]
MIB = 1 << 20


def resident() -> float:
    """MiB of this process now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / MIB


def measure(steps: int, hidden: int, case: str) -> dict[str, float]:
    import jax
    import jax.numpy as jnp

    import jaxlstm as jl

    checkpoint = {"none": None, "sqrt": "sqrt"}.get(case, case)
    checkpoint = int(case) if case.isdigit() else checkpoint
    cell = jl.lstm(hidden)
    xs = jax.random.normal(jax.random.key(0), (steps, 1, hidden))
    params = cell.init(jax.random.key(1), xs[0])

    @jax.jit
    def gradient(params, xs):
        loss = lambda params: (jl.scan(cell, params, xs, checkpoint=checkpoint)[1] ** 2).mean()
        return jax.grad(loss)(params)

    jax.block_until_ready((xs, params))
    before = resident()
    compiled = gradient.lower(params, xs).compile()
    jax.block_until_ready(compiled(params, xs))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    out = jax.block_until_ready(compiled(params, xs))
    seconds = time.perf_counter() - start
    finite = all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(out))
    assert finite, "the gradient is not finite"
    planned = compiled.memory_analysis().temp_size_in_bytes / MIB
    return {"over": peak - before, "planned": planned, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000, help="T")
    parser.add_argument("--hidden", type=int, default=128, help="H and D")
    parser.add_argument("--case", choices=CASES, help="measure this one here, as JSON")
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(given.steps, given.hidden, given.case)))
        return
    print(f"gradient of lstm({given.hidden}), T = {given.steps:,}, B = 1, float32")
    print("| checkpoint | MiB over the baseline | of it planned by XLA | seconds |")
    print("|---|---|---|---|")
    for case in CASES:
        command = [sys.executable, "-m", "experiments.benchmarks.memory", "--case", case]
        command += [f"--steps={given.steps}", f"--hidden={given.hidden}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout)
        print(f"| {case} | {row['over']:.0f} | {row['planned']:.0f} | {row['seconds']:.2f} |")


if __name__ == "__main__":
    main()
