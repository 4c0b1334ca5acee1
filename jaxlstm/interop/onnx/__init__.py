"""ONNX: models of native recurrent nodes out of trained layers, and such nodes back in."""

from jaxlstm.interop.onnx.reading import from_onnx
from jaxlstm.interop.onnx.writing import to_onnx

__all__ = ["from_onnx", "to_onnx"]
