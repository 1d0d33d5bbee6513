"""Which backend a process uses, decided once at its start, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth_kernels.interface import KernelError
from berth_kernels.reference import ReferenceKernels

if TYPE_CHECKING:
    from berth_kernels.interface import Kernels

NAMES = ("reference", "native", "flashinfer", "auto")


def select(name: str) -> Kernels:
    """Return the backend `name`; `auto` is the best one present.

    Raises KernelError for a backend that this version lacks and for a name that means none.
    """
    if name in ("auto", "reference"):
        return ReferenceKernels()
    if name in NAMES:
        raise KernelError(f"attention backend {name!r} is not built in this version; use 'reference' or 'auto'")
    raise KernelError(f"no attention backend {name!r}: choose one of {', '.join(NAMES)}")
