"""Settings of the CPU that experiments run with, made before JAX first looks for devices."""

import os

import jax

# With the default scheduler, programs with several loops that do not depend on one another
# (two layers' gradients are enough) hang now and then, all threads idle: jaxlib 0.10.2, 7 of
# 9 starts of a two-layer language model on two cores, with or without threads in Eigen; with
# this, 0 of 15, and steps of 205 ms instead of 247. There is no such choice on a GPU or TPU.
SCHEDULER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def prepare_cpu(devices: int) -> None:
    """Lets a CPU serve as that many devices, and chooses a scheduler that does not hang.

    On a GPU or TPU this changes nothing.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if SCHEDULER.split("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {SCHEDULER}".strip()
    jax.config.update("jax_num_cpu_devices", devices)
