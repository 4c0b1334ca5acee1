"""Argument checks: ValueErrors that name the argument, what was expected and what came."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check(condition: bool, argument: str, expected: str, got: Any) -> None:
    """Raises ValueError `argument: expected ..., got ...` unless the condition holds."""
    if not condition:
        raise ValueError(f"{argument}: expected {expected}, got {got}")


def describe(value: Any) -> str:
    """Says what an array is: its shape and dtype, or its type if it is no array."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"shape {tuple(value.shape)} of {value.dtype}"
    return f"{type(value).__name__} {value!r}"[:200]


def check_size(size: Any, argument: str) -> None:
    """Raises ValueError unless `size` is an integer of at least 1."""
    is_integer = isinstance(size, int | np.integer) and not isinstance(size, bool)
    check(is_integer and size >= 1, argument, "a positive integer", repr(size))


def check_floating(value: Any, argument: str) -> None:
    """Raises ValueError unless `value` is an array of floating-point numbers."""
    is_floating = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    check(is_floating, argument, "an array of floating-point numbers", describe(value))


def check_shape(value: Any, shape: tuple[int, ...], argument: str, because: str = "") -> None:
    """Raises ValueError unless `value` has that shape; `because` says where it comes from."""
    expected = f"shape {tuple(shape)}{' ' + because if because else ''}"
    got = describe(value)
    check(hasattr(value, "shape") and tuple(value.shape) == tuple(shape), argument, expected, got)


def check_features(x: Any, features: int, argument: str, owner: str) -> None:
    """Raises ValueError unless the last axis of `x` has the size that the params expect."""
    check_floating(x, argument)
    check(
        x.ndim >= 1 and x.shape[-1] == features,
        argument,
        f"{features} features on the last axis, as in {owner}",
        describe(x),
    )


def is_concrete(value: Any) -> bool:
    """Whether the numbers of an array can be looked at now, outside of any tracing."""
    return not isinstance(value, jax.core.Tracer)


def check_xs(xs: Any) -> tuple[int, ...]:
    """The shape of a sequence's first array; ValueError unless all have one number of steps."""
    leaves = jax.tree.leaves(xs)
    check(bool(leaves), "xs", "an array (T, *B, D)", repr(xs))
    for x in leaves:
        check(
            hasattr(x, "ndim") and hasattr(x, "dtype") and x.ndim >= 1,
            "xs",
            "arrays with time as their first axis",
            describe(x),
        )
    times = {x.shape[0] for x in leaves}
    check(len(times) == 1, "xs", "one number of steps", f"{sorted(times)}")
    return leaves[0].shape


def check_lengths(lengths: Any, shape: tuple[int, ...]) -> Any:
    """The lengths as an array; ValueError unless they fit sequences of that shape, (T, *B, D)."""
    if lengths is None:
        return None
    values = lengths if hasattr(lengths, "dtype") else np.asarray(lengths)
    batch = shape[1 : 1 + values.ndim]
    check(jnp.issubdtype(values.dtype, jnp.integer), "lengths", "integers", describe(values))
    expected = f"the batch axes of xs, which is {shape} with time first"
    check(values.shape == batch, "lengths", expected, describe(values))
    if is_concrete(values) and values.size:
        low, high = int(np.asarray(values).min()), int(np.asarray(values).max())
        check(
            low >= 0 and high <= shape[0],
            "lengths",
            f"values in [0, {shape[0]}]",
            f"{low} to {high}",
        )
    return jnp.asarray(values)


def check_flags(flags: Any, argument: str, shape: tuple[int, ...]) -> Any:
    """A mask or resets as an array; ValueError unless booleans that fit that shape, (T, *B, D)."""
    if flags is None:
        return None
    flags = flags if hasattr(flags, "dtype") else np.asarray(flags)
    check(flags.dtype == bool, argument, "booleans", describe(flags))
    fits = flags.ndim >= 1 and flags.shape == shape[: flags.ndim]
    check(fits, argument, f"time and the batch axes of xs, which is {shape}", describe(flags))
    return jnp.asarray(flags)


def check_options(options: dict[str, Any]) -> None:
    """Raises ValueError for an option that a Layer's `apply` has not."""
    known = ["key", "lengths", "mask", "resets", "implementation", "checkpoint"]
    unknown = [name for name in options if name not in known]
    check(not unknown, "options of a Layer", f"some of {', '.join(known)}", ", ".join(unknown))
