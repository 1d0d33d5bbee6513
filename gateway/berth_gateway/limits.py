"""Rate limits: one token bucket a caller, so that a loop gone wild costs its owner answers and nobody else."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from berth_gateway.settings import RateSettings

_ENOUGH = 1 - 1e-9
"""A token, but for the rounding of the refill: who waited as long as told is let in."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    """Clock when `tokens` was counted."""


class Limiter:
    """Buckets by name, the least recently used forgotten beyond `settings.most_buckets`. `clock` is in seconds."""

    def __init__(self, settings: RateSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, per_second: float | None = None) -> float:
        """Take one request from a bucket. Returns 0.0, or the seconds until there is one: then nothing was taken.

        `per_second` is this caller's own rate, instead of everyone's; without either nothing is limited.
        """
        rate = per_second if per_second is not None else self._settings.per_second
        if rate is None:
            return 0.0
        burst, now = max(1.0, rate * self._settings.burst_s), self._clock()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(burst, now)
            if len(self._buckets) > self._settings.most_buckets:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        bucket.tokens = min(burst, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.tokens < _ENOUGH:
            return (1 - bucket.tokens) / rate
        bucket.tokens = max(0.0, bucket.tokens - 1)
        return 0.0
