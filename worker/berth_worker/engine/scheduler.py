"""Which sequences run, and what each of them does in the next forward pass. No torch, no I/O, no clock.

Strictly first come, first served. A sequence is admitted once a row is free and pages are *reserved* for all that it
may come to, so whatever runs can finish, and no deadlock is possible without retraction; the price is that a generous
max_new_tokens waits longer. KV of sessions without an admitted request gives way to admission, if that helps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth_api.errors import QueueFull
from berth_worker.engine.batch import SequenceStep
from berth_worker.engine.sequence import Sequence, Work

if TYPE_CHECKING:
    from berth_worker.cache.kv import Holding, KVCache
    from berth_worker.cache.sessions import SessionKey, Slots


@dataclass(frozen=True, slots=True)
class Limits:
    """`chunk`: prefill tokens a step. `running`: sequences in a batch. `queue`: sequences that may wait."""

    chunk: int
    running: int
    queue: int


class Scheduler:
    """Owns the order of sequences; the cache owns the pages, the slots the KV between turns."""

    def __init__(self, cache: KVCache, slots: Slots, limits: Limits) -> None:
        self._cache, self._slots, self._limits = cache, slots, limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._prefilled_last = False

    @property
    def holdings(self) -> list[Holding]:
        """What admitted sequences hold."""
        return [sequence.holding for sequence in self.running if sequence.holding is not None]

    def check_queue(self) -> None:
        """Raise `QueueFull` if nothing more may wait."""
        if len(self.waiting) >= self._limits.queue:
            raise QueueFull(f"{len(self.waiting)} requests are waiting already", retry_after=1)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that ended, or was never added; its holding is the caller's to save or to release."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def admit(self) -> list[Sequence]:
        """Move sequences from the queue into the batch, oldest first, until one does not fit; return them."""
        admitted = []
        while self.waiting and len(self.running) < self._limits.running and self._make_room(self.waiting[0]):
            sequence = self.waiting.popleft()
            holding = self._restore(sequence) or self._cache.open()
            sequence.restart_from(holding, holding.committed)
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def plan(self) -> list[Work]:
        """Return the next forward pass: prefill chunks and decodes take turns, so that neither starves the other."""
        prefill = [sequence for sequence in self.running if not sequence.decoding]
        decode = [sequence for sequence in self.running if sequence.decoding]
        self._prefilled_last = bool(prefill) and not (decode and self._prefilled_last)
        return self._chunks(prefill) if self._prefilled_last else [self._work(sequence, 1) for sequence in decode]

    def _chunks(self, prefill: list[Sequence]) -> list[Work]:
        work, budget = [], self._limits.chunk
        for sequence in prefill:
            if budget:
                work.append(self._work(sequence, min(budget, sequence.extend_length)))
                budget -= work[-1].step.end - work[-1].step.start
        return work

    def _work(self, sequence: Sequence, count: int) -> Work:
        """Allocate pages for the next `count` ids (reserved at admission) and describe the step."""
        holding = sequence.holding
        if holding is None:
            raise RuntimeError(f"sequence {sequence.key} runs without a row")
        end = sequence.computed + count
        self._cache.grow(holding, end)
        samples = end == sequence.length < sequence.limit
        return Work(
            sequence,
            SequenceStep(
                key=sequence.key,
                tokens=sequence.ids,
                start=sequence.computed,
                end=end,
                pages=self._cache.pages(holding),
                sample=sequence.sample if samples else None,
                prompt_logprobs_from=sequence.prompt_logprobs_from,
                prompt_top_logprobs=sequence.sample.top_logprobs,
            ),
        )

    def _make_room(self, sequence: Sequence) -> bool:
        """Bring row and pages for `sequence` together, evicting slots if that suffices; say whether it fits."""
        holding = self._restore(sequence)
        rows = 0 if holding is not None else 1
        pages = self._cache.missing_pages(holding, sequence.limit)
        give_way = self._giving_way(sequence)
        held = {key: self._cache.own_pages(slot.holding) for key in give_way if (slot := self._slots.get(key))}
        if pages > self._spare() + sum(held.values()) or rows > self._cache.rows.free + len(held):
            return False
        for key in give_way:
            if pages <= self._spare() and rows <= self._cache.rows.free:
                break
            self._slots.evict(key)
        return True

    def _restore(self, sequence: Sequence) -> Holding | None:
        # The last known id is computed again even where its KV is there: its logits are needed.
        return self._slots.restore(sequence.session, min(sequence.reuse, sequence.length - 1))

    def _spare(self) -> int:
        """Free pages that no admitted sequence has a claim on."""
        claimed = sum(self._cache.missing_pages(sequence.holding, sequence.limit) for sequence in self.running)
        return self._cache.pool.free - claimed

    def _giving_way(self, sequence: Sequence) -> list[SessionKey]:
        lent = {other.session for other in self.running if other.session is not None}
        queued = [other.session for other in self.waiting if other.session is not None and other is not sequence]
        return [key for key in self._slots.evictable(lent, queued) if key != sequence.session]
