"""Text from a trained model, one step at a time."""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array

from experiments.language_model import model, workdir
from experiments.language_model.config import Config
from experiments.language_model.pretrained import params_of
from jaxlstm.data.text import END_OF_LINE, Vocabulary, words


@partial(jax.jit, static_argnums=0)
def advance(config: Config, params: model.ModelParams, carry, token: Array):
    """One step: the carry, and logits (V,) for the next token."""
    carry, scores = model.logits(config, params, carry, token.reshape(1, 1))
    return carry, scores[0, 0]


@jax.jit
def draw(key: Array, scores: Array, temperature: Array, top_k: Array, top_p: Array) -> Array:
    """A token from softmax(scores / temperature), of the k likeliest and of the nucleus p.

    The nucleus is the smallest set of likeliest tokens with a probability of at least p
    together (Holtzman et al. 2020, arXiv:1904.09751). Temperature 0 takes the likeliest.
    """
    order = jnp.argsort(-scores)
    ranked = scores[order] / jnp.maximum(temperature, 1e-6)
    probability = jax.nn.softmax(ranked)
    before = jnp.cumsum(probability) - probability
    kept = (jnp.arange(len(scores)) < top_k) & (before < top_p)
    kept = kept.at[0].set(True) & ((jnp.arange(len(scores)) == 0) | (temperature > 0))
    return order[jax.random.categorical(key, jnp.where(kept, ranked, -jnp.inf))]


def sample(
    config: Config,
    vocabulary: Vocabulary,
    params: model.ModelParams,
    prompt: str,
    length: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """Yields `length` pieces of text that go on from the prompt; never `<unk>`."""
    tokens = vocabulary.encode(words(prompt)[:-1] if config.level == "word" else prompt)
    if not len(tokens):
        tokens = vocabulary.encode([END_OF_LINE if config.level == "word" else "\n"])
    carry = model.initial_carry(config, params, 1)
    for token in tokens:
        carry, scores = advance(config, params, carry, jnp.asarray(token))
    key = jax.random.key(seed)
    for n in range(length):
        scores = scores.at[0].set(-jnp.inf)
        choice = draw(
            jax.random.fold_in(key, n), scores, temperature, top_k or len(vocabulary), top_p
        )
        symbol = vocabulary.symbols[int(choice)]
        if config.level == "word":
            symbol = "\n" if symbol == END_OF_LINE else symbol + " "
        yield symbol
        carry, scores = advance(config, params, carry, choice)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.language_model sample",
        description="Stream text from a trained model, by single steps.",
    )
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--prompt", default="\n", help="text to go on from")
    parser.add_argument("--length", type=int, default=500, help="characters or words to make")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 takes the likeliest")
    parser.add_argument("--top-k", type=int, default=0, help="draw from the k likeliest; 0: all")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw from the nucleus p")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--which", choices=("latest", "best"), default="latest", help="params")
    given = parser.parse_args(arguments)
    for name, good in (
        ("length", given.length >= 0),
        ("temperature", given.temperature >= 0),
        ("top-k", given.top_k >= 0),
        ("top-p", 0 < given.top_p <= 1),
    ):
        if not good:
            raise ValueError(
                f"--{name}: no sensible value: {getattr(given, name.replace('-', '_'))}"
            )
    folder = Path(given.workdir)
    config, vocabulary = workdir.load(folder)
    params, warnings = params_of(config, vocabulary, folder / "checkpoints", given.which)
    unknown = int(
        (
            vocabulary.encode(words(given.prompt) if config.level == "word" else given.prompt) == 0
        ).sum()
    )
    for line in warnings + ([f"{unknown} symbols of the prompt count as <unk>"] if unknown else []):
        print(f"note: {line}", flush=True)
    print(given.prompt, end="", flush=True)
    for piece in sample(
        config, vocabulary, params, given.prompt, given.length,
        given.temperature, given.top_k, given.top_p, given.seed,
    ):  # fmt: skip
        print(piece, end="", flush=True)
    print()
