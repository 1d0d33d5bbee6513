"""What a turn is to do, already in ids: the form in which it travels inside the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from berth_api.public import OnWorkerFailure
from berth_api.wire import Sampling


@dataclass(frozen=True, slots=True)
class Work:
    """`input_ids` are packed little-endian int32; `arrived` is the loop's time when the request came in."""

    input_ids: bytes
    sampling: Sampling
    arrived: float
    logprobs: bool = False
    top_logprobs: int = 0
    on_worker_failure: OnWorkerFailure | None = None
    background: bool = False
    shared: bool = False
    """The client named the turn by a key of its own, and may have asked another gateway for it too."""
