"""CPU kernels for whole LSTM and GRU sequences, as targets of XLA's foreign function interface.

`register()` makes the targets known to JAX; `jax.ffi.ffi_call` calls them. All arrays are
float32, `valid` is bool. T steps, B sequences, D features, H units; gates i, f, g, o of the
LSTM and r, z, n of the GRU, G being 4 and 3.

    jaxlstm_lstm_forward        x (T, B, D), w_x (D, 4, H), w_h (H, 4, H), b (4, H),
                                peephole (3, H) or (0, H), c0 (B, H), h0 (B, H),
                                valid (T, B) or (0, B)
                             -> c_last (B, H), hs (T, B, H)
    jaxlstm_lstm_forward_keep   the same
                             -> cs (T, B, H), hs, gates (T, B, 4, H) or (0, B, 4, H)
    jaxlstm_lstm_backward       x, w_x, w_h, peephole, c0, h0, valid, cs, hs, gates,
                                g_hs, g_cs (T, B, H) or (0, B, H), g_c_last, g_h_last
                             -> g_x, g_w_x, g_w_h, g_b, g_peephole, g_c0, g_h0
    jaxlstm_lstm_backward_lean  x, w_x, w_h, b, peephole, c0, h0, valid, cs, hs,
                                g_hs, g_cs, g_c_last, g_h_last
                             -> the same
    jaxlstm_gru_forward         x, w_x (D, 3, H), w_h (H, 3, H), b (3, H), b_n (H), h0, valid
                             -> hs
    jaxlstm_gru_forward_keep    the same
                             -> hs, gates (T, B, 4, H) or (0, B, 4, H): r, z, n, h U_n + b_n
    jaxlstm_gru_backward        x, w_x, w_h, h0, valid, hs, gates, g_hs, g_h_last
                             -> g_x, g_w_x, g_w_h, g_b, g_b_n, g_h0
    jaxlstm_gru_backward_lean   x, w_x, w_h, b, b_n, h0, valid, hs, g_hs, g_h_last
                             -> the same

Where `valid` is False the carry stays as it was, x counts for nothing, and the gates kept are zero.
The lean backward sweeps need no gates: they compute them again, block by block.
"""

import ctypes
import functools
from pathlib import Path

import jax

__version__ = "0.1.0"
__all__ = ["TARGETS", "instruction_set", "register", "use"]

TARGETS = tuple(
    f"jaxlstm_{cell}_{sweep}"
    for cell in ("lstm", "gru")
    for sweep in ("forward", "forward_keep", "backward", "backward_lean")
)


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(Path(__file__).with_name("libjaxlstm_native.so")))
    library.jaxlstm_instruction_set.restype = ctypes.c_char_p
    library.jaxlstm_use.argtypes = [ctypes.c_char_p]
    return library


@functools.cache
def register() -> None:
    """Registers the targets with JAX, for the CPU. Later calls do nothing."""
    for name in TARGETS:
        target = jax.ffi.pycapsule(getattr(_library(), name))
        jax.ffi.register_ffi_target(name, target, platform="cpu")


def instruction_set() -> str:
    """The one that the kernels run with: "avx512", "avx2" or "portable"."""
    return _library().jaxlstm_instruction_set().decode()


def use(instruction_set: str) -> None:
    """Has the kernels run with another instruction set, for tests.

    Args:
      instruction_set: "avx512", "avx2" or "portable".

    Raises:
      ValueError: if the processor, or this build, has it not.
    """
    if not _library().jaxlstm_use(instruction_set.encode()):
        raise ValueError(
            f"instruction_set: expected one that this processor has, got {instruction_set!r}"
        )
