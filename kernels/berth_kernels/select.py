"""Which backend a process uses, decided once at its start, by name."""

from __future__ import annotations

import logging
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

log = logging.getLogger(__name__)


def select(name: str) -> Kernels:
    """Return the backend `name`; `auto` is the best one that can be had here, with a warning when that is the slow one.

    The native backend is built when it is first asked for. It takes as many threads as torch has now.
    Raises KernelError for a backend that cannot be had, with what it lacks, and for a name that means none.
    """
    if name == "reference":
        return ReferenceKernels()
    if name == "native":
        return NativeKernels()
    if name == "flashinfer":
        return _flashinfer()
    if name == "auto":
        return _best()
    raise KernelError(f"no attention backend {name!r}: choose one of {', '.join(NAMES)}")


def _best() -> Kernels:
    try:
        return NativeKernels()
    except KernelError as error:
        log.warning("attention falls back to 'reference', several times slower on long histories: %s", error)
        return ReferenceKernels()


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
