"""Weights of Keras 3's recurrent layers, in and out."""

from jaxlstm.interop.keras.layers import from_keras, from_weights, to_keras

__all__ = ["from_keras", "from_weights", "to_keras"]
