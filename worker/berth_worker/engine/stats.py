"""What the engine tells about itself: one frozen snapshot, taken between steps, read by any thread."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth_worker.cache.integrity import Memory
    from berth_worker.cache.sessions import Cause


@dataclass(slots=True)
class Counters:
    """Totals since the start."""

    turns: Counter[str] = field(default_factory=Counter)
    """Requests that ended, by outcome: `stop`, `length` or the reason of an abort."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reprefilled_tokens: int = 0
    """Tokens whose KV had been wiped, here or with another worker, and had to be computed again."""
    generated_tokens: int = 0
    steps: int = 0
    failed_steps: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """One moment of the engine."""

    memory: Memory
    running: int
    queued: int
    resident: int
    """Sessions that hold a slot, or run."""
    lent: int
    """Of them, those whose turn runs."""
    native_sessions: int
    turns: dict[str, int]
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    reprefilled_tokens: int
    steps: int
    retracts: int
    releases: Mapping[Cause, int]
    """Slots wiped, by cause."""
    failed_steps: int
    """Steps that failed in a row, up to now."""
    draining: bool
