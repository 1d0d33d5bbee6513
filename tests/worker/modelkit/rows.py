"""The rows of the matrix, ways to run a worker, and how large its checks are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SLOTS = 12
"""Of a worker's: fewer than the crowd's sessions."""


@dataclass(frozen=True)
class Row:
    """A way to run the worker."""

    name: str
    page: int
    chunk: int
    mixed: bool = False
    retracts: bool = False
    context: int = 8192

    def __str__(self) -> str:
        return self.name

    @property
    def lasting(self) -> int:
        """Output tokens of a turn that runs to its end, but for about a second."""
        return 300 if self.retracts else 800

    def flags(self, pool: int) -> dict[str, Any]:
        every = {"retract_every": 3} if self.retracts else {}
        return every | {
            "page_size": self.page,
            "chunked_prefill_size": self.chunk,
            "mixed_chunk": self.mixed,
            "context_length": self.context,
            "max_total_tokens": pool,
        }


ROWS = (
    Row("base", page=1, chunk=512),
    Row("retract+mixed", page=16, chunk=128, mixed=True, retracts=True),
    Row("retract+large-page", page=256, chunk=4096, retracts=True),
)
SHORT = Row("short-context", page=256, chunk=512, context=512)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    pool: int
    """Tokens of KV, for whole pages of any row."""
    rounds: int
    """Of the concurrent conversations with and without logprobs."""
    flat: tuple[int, int]
    """Sessions and turns of the flatness check."""
    alone: int
    """Turns of the one session that is compared with requests of its whole history."""
    crowd: tuple[int, int]
    """Sessions, more than slots, and the tokens a turn that make them more than the pool, too."""


DAILY = Size(pool=10_240, rounds=1, flat=(8, 16), alone=30, crowd=(16, 160))
FULL = Size(pool=40_960, rounds=10, flat=(8, 150), alone=30, crowd=(30, 400))
