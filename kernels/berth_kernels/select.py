"""Which backend a process uses, decided once at its start, by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import torch

from berth_kernels.gpu import missing
from berth_kernels.interface import KernelError
from berth_kernels.native import NativeKernels
from berth_kernels.reference import ReferenceKernels

if TYPE_CHECKING:
    from berth_kernels.interface import Kernels

NAMES = ("reference", "native", "flashinfer", "auto")


def select(name: str) -> Kernels:
    """Return the backend `name`; `auto` is the reference: the native one has yet to be measured on an idle machine.

    The native backend is built when it is first asked for. It takes as many threads as torch has now.
    Raises KernelError for a backend that cannot be had, with what it lacks, and for a name that means none.
    """
    if name in {"reference", "auto"}:
        return ReferenceKernels()
    if name == "native":
        return NativeKernels()
    if name == "flashinfer":
        return _flashinfer()
    raise KernelError(f"no attention backend {name!r}: choose one of {', '.join(NAMES)}")


def _flashinfer() -> Kernels:
    if lacks := missing():
        raise KernelError(f"attention backend 'flashinfer' needs {' and '.join(lacks)}")
    try:
        # Seconds to load, and of no use to any other backend.
        library, backend = import_module("flashinfer"), import_module("berth_kernels.flashinfer_backend")
    except Exception as error:
        raise KernelError(f"flashinfer is installed and cannot be loaded: {error}") from error
    kernels: Kernels = backend.FlashInferKernels(library, torch.device("cuda"))
    return kernels
