"""What a machine lacks for the GPU backend. Asking costs nothing: neither Triton nor FlashInfer is loaded for it."""

from __future__ import annotations

from importlib.util import find_spec

import torch


def missing() -> list[str]:
    """Return what is not here, in words; empty: nothing."""
    lacks = []
    if not torch.cuda.is_available():
        lacks.append(f"an NVIDIA GPU and its driver (torch {torch.__version__} sees none)")
    if find_spec("triton") is None:
        lacks.append("the package triton (it comes with torch on Linux)")
    if find_spec("flashinfer") is None:
        lacks.append("the package flashinfer-python (install berth[gpu])")
    return lacks
