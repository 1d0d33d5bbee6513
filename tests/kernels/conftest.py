"""The backends that all of them are held to, and the way to the kit beside this file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

KIT = str(Path(__file__).parent)
if KIT not in sys.path:
    sys.path.insert(0, KIT)

# Triton's kernels are run by its interpreter, on the CPU. It wants to know before it is first loaded.
os.environ["TRITON_INTERPRET"] = "1"

from berth_kernels.flashinfer_backend import FlashInferKernels  # noqa: E402 - beside what follows
from berth_kernels.interface import KernelError  # noqa: E402
from berth_kernels.native import NativeKernels  # noqa: E402
from berth_kernels.ops_reference import ReferenceOps  # noqa: E402
from berth_kernels.reference import ReferenceKernels  # noqa: E402
from berth_kernels.triton.ops import TritonOps  # noqa: E402
from kernelkit.flashinfer import FlashInfer  # noqa: E402

NATIVE = ["avx512", "avx2", "generic"]


def native_kernels(path: str, threads: int = 1) -> NativeKernels:
    try:
        return NativeKernels(path=path, threads=threads)
    except KernelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=NATIVE)
def native(request):
    """The native backend, once with each instruction set that this CPU has."""
    return native_kernels(request.param)


@pytest.fixture(scope="session", params=["reference", "flashinfer", *NATIVE])
def kernels(request):
    """Every backend, FlashInfer's over a stand-in for the package."""
    if request.param == "reference":
        return ReferenceKernels()
    if request.param == "flashinfer":
        return FlashInferKernels(FlashInfer(), torch.device("cpu"))
    return native_kernels(request.param)


@pytest.fixture(scope="session", params=[ReferenceOps, TritonOps])
def ops(request):
    """What is not attention, by every backend that has its own."""
    return request.param()


@pytest.fixture(scope="session")
def threads():
    """Make a native backend like another one, but with so many threads: `threads(native, 3)`."""
    return lambda native, count: native_kernels(native.path, count)
