"""What the KV bookkeeping can raise. Neither is ever the client's fault."""

from __future__ import annotations


class AccountingError(RuntimeError):
    """KV bookkeeping contradicts itself: the worker's state can no longer be trusted."""


class OutOfMemory(RuntimeError):
    """More pages or rows were asked for than are free. Admission reserves first, so this is a fault of ours."""
