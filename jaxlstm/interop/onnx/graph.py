"""What the tensors of an ONNX graph hold, as far as constants and rearrangements tell."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxlstm.interop.arrays import needed

REARRANGING = "Squeeze, Unsqueeze, Transpose, Reshape, Identity, Dropout, Cast, Concat, Add or Sum"


def attributes_of(node: Any) -> dict[str, Any]:
    """A node's attributes by name, text as `str`."""
    helper = needed("onnx", "onnx").helper
    text = lambda v: v.decode() if isinstance(v, bytes) else v
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: [text(v) for v in a] if isinstance(a, list) else text(a) for k, a in values.items()}


def constants_of(graph: Any) -> dict[str, np.ndarray]:
    """The initializers, Constant nodes, and what is made of those by rearranging them."""
    numpy_helper = needed("onnx", "onnx").numpy_helper
    known = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for name, value in attributes_of(node).items():
                if name in ("value_int", "value_ints", "value_float", "value_floats"):
                    known[node.output[0]] = np.asarray(value)
                elif name == "value":
                    known[node.output[0]] = numpy_helper.to_array(value)
    return rearranged(graph, known)


def rearranged(graph: Any, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The known tensors, and what the graph makes of them by rearranging and adding them."""
    found = dict(known)
    for node in graph.node:
        rule = _RULES.get(node.op_type)
        inputs = [name for name in node.input if name]
        if rule is None or node.output[0] in found or not all(name in found for name in inputs):
            continue
        try:
            array = rule(attributes_of(node), *(found[name] for name in inputs))
        except (ValueError, IndexError):  # of a Reshape for other sizes, which then leads nowhere
            continue
        found[node.output[0]] = array
    return found


def starts_of(graph: Any, constants: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Which tensors are `"zero"`, and which are `"given"`: parts of the graph's inputs."""
    numpy_helper = needed("onnx", "onnx").numpy_helper
    found = {i.name: "given" for i in graph.input if i.name not in constants}
    found |= {name: "zero" for name, array in constants.items() if not array.any()}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            value = attributes_of(node).get("value")
            if value is None or not numpy_helper.to_array(value).any():
                found[node.output[0]] = "zero"
        elif node.op_type in _PICKING and node.input[0] in found:
            found |= dict.fromkeys(node.output, found[node.input[0]])
        elif node.op_type == "Concat" and all(name in found for name in node.input):
            kinds = {found[name] for name in node.input}
            found[node.output[0]] = "given" if "given" in kinds else "zero"
    return found


_PICKING = (
    *("Slice", "Gather", "Split", "Expand", "Tile"),
    *("Identity", "Cast", "CastLike", "Squeeze", "Unsqueeze", "Transpose", "Reshape"),
)


def _cast(attributes, a):
    """Of weights alone: integers are sizes, or marks of a place, which are to stay apart."""
    helper = needed("onnx", "onnx").helper
    floating = a.dtype.kind not in "iub"
    return a.astype(helper.tensor_dtype_to_np_dtype(attributes["to"])) if floating else a


def _axes(attributes, inputs):
    """The axes of a Squeeze, Unsqueeze or ReduceSum: an attribute before opset 13."""
    axes = inputs[0] if inputs else attributes.get("axes")
    return None if axes is None else tuple(int(axis) for axis in axes)


def _unsqueeze(attributes, a, *axes):
    places = _axes(attributes, axes)
    return a if places is None else np.expand_dims(a, places)


def _reshape(attributes, a, shape):
    copies = not attributes.get("allowzero")
    sizes = enumerate(int(size) for size in shape)
    return a.reshape([a.shape[n] if copies and size == 0 else size for n, size in sizes])


def _reduce_sum(attributes, a, *axes):
    return a.sum(_axes(attributes, axes), keepdims=bool(attributes.get("keepdims", 1)))


_RULES: dict[str, Callable[..., Any]] = {
    "Identity": lambda attributes, a: a,
    "Cast": _cast,
    "Dropout": lambda attributes, a, *_: a,
    "Squeeze": lambda attributes, a, *axes: np.squeeze(a, _axes(attributes, axes)),
    "Unsqueeze": _unsqueeze,
    "Transpose": lambda attributes, a: np.transpose(a, attributes.get("perm")),
    "Reshape": _reshape,
    "Concat": lambda attributes, *arrays: np.concatenate(arrays, attributes["axis"]),
    "Add": lambda attributes, a, b: a + b,
    "Sum": lambda attributes, *arrays: sum(arrays),
    "ReduceSum": _reduce_sum,
    "Shape": lambda attributes, a: np.array(
        a.shape[attributes.get("start") : attributes.get("end")]
    ),
    "Gather": lambda attributes, a, at: np.take(a, at, attributes.get("axis", 0)),
}
