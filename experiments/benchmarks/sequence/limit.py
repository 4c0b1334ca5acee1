"""What the machine can do: products of float32 matrices, and copies in cache and in memory."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

CACHE = Path("/sys/devices/system/cpu/cpu0/cache")


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_seconds() -> float:
    """Processor time of all that runs on the machine; 0 where the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def best(call: Callable[[], object], calls: int) -> float:
    """The least seconds of a call."""
    seconds = []
    for _ in range(calls + 1):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def product(library: str, size: int, calls: int) -> float:
    """GFLOP/s of a square product by JAX or PyTorch, on all cores."""
    if library == "torch":
        import torch

        a = torch.randn(size, size)
        call: Callable[[], object] = lambda: a @ a
    else:
        import jax
        import jax.numpy as jnp

        x = jax.random.normal(jax.random.key(0), (size, size))
        multiply = jax.jit(jnp.matmul)
        call = lambda: multiply(x, x).block_until_ready()
    return 2 * size**3 / best(call, calls) / 1e9


def cache_bytes(level: int, default: int) -> int:
    """The size of a cache of one core, as Linux tells it."""
    for index in sorted(CACHE.glob("index*")):
        if (index / "level").read_text().strip() == str(level):
            return int((index / "size").read_text().strip().removesuffix("K")) * 1024
    return default


def bandwidth(size: int, calls: int) -> float:
    """GB/s read and written by copies of `size` bytes, one on each core at the same time."""
    n = cores()
    repeats = max(1, (32 << 20) // size)
    arrays = [(np.ones(size // 4, np.float32), np.empty(size // 4, np.float32)) for _ in range(n)]

    def copy(pair):
        for _ in range(repeats):
            np.copyto(pair[1], pair[0])

    with ThreadPoolExecutor(n) as pool:
        seconds = best(lambda: list(pool.map(copy, arrays)), calls)
    return 2 * size * repeats * n / seconds / 1e9


def memory_limits(quick: bool) -> dict[str, float]:
    """GB/s within the second cache, and in memory that no cache holds."""
    calls = 3 if quick else 10
    inside = cache_bytes(2, 1 << 20) // 4
    outside = (16 << 20) if quick else max(64 << 20, 4 * cache_bytes(3, 16 << 20) // cores())
    return {
        "cache_gb_per_s": bandwidth(inside, calls),
        "cache_bytes": inside,
        "memory_gb_per_s": bandwidth(outside, calls),
        "memory_bytes": outside,
    }
