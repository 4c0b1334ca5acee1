"""What the runs of the battery need, imported once; no JAX backend may begin here."""

import importlib

import matplotlib

matplotlib.use("Agg")

for name in (
    "matplotlib.pyplot",
    "experiments.language_model.finish",
    "experiments.language_model.workdir",
    "tests.faults.counting",
):
    importlib.import_module(name)
