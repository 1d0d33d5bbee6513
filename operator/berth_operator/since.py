"""Since when: the memory that turns repeated looks at the world into durations."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def since(before: Mapping[K, float], holding: Iterable[K], now: float) -> dict[K, float]:
    """Return when each thing that holds now began to; what ceased to hold is forgotten."""
    return {key: before.get(key, now) for key in holding}
