"""Which sequences run, and what each of them does in the next forward pass. No torch, no I/O, no clock.

Strictly first come, first served. A sequence is admitted when there is room for what it knows and a little more. Pages
for the rest come as it grows: from the tree's leaves, from slots that nobody works on, at last from the newest of those
that run, which are retracted: their KV goes, and they wait again in their old place. The oldest is never asked, so it
always gets on, and nothing that would fit into the pool alone waits for ever.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from berth_api.errors import QueueFull
from berth_worker.cache.errors import AccountingError
from berth_worker.cache.room import Room
from berth_worker.engine.batch import SequenceStep
from berth_worker.engine.sequence import Sequence, Work

if TYPE_CHECKING:
    from berth_worker.cache.kv import Holding, KVCache
    from berth_worker.cache.radix import Prefix
    from berth_worker.cache.sessions import Slot, Slots

ARRIVAL = attrgetter("key")

Part = tuple[Sequence, int]
"""A sequence, and how many of its ids go through the model in a pass."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`chunk`: prefill tokens a step. `running`: sequences in a batch. `queue`: sequences that may wait; `queue_s`:
    for so many seconds until they are admitted (None: for ever).

    `mixed`: decodes and prefill chunks share a pass. `retract_every`: retract the newest that can be every so many
    passes, without need (0: never). `headroom`: output tokens for which there must be room at admission.
    """

    chunk: int
    running: int
    queue: int
    queue_s: float | None = None
    mixed: bool = False
    retract_every: int = 0
    headroom: int = 128


class Scheduler:
    """Owns the order of sequences; the cache owns the pages, the slots the KV between turns."""

    def __init__(self, cache: KVCache, slots: Slots, limits: Limits) -> None:
        self._cache, self._slots, self._limits = cache, slots, limits
        self._room = Room(cache, slots)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        """Both oldest first."""
        self.retracts = 0
        self._prefilled_last = False
        self._passes = 0

    @property
    def holdings(self) -> list[Holding]:
        """What admitted sequences hold."""
        return [sequence.holding for sequence in self.running if sequence.holding is not None]

    def check_queue(self) -> None:
        """Raise `QueueFull` if nothing more may wait."""
        if len(self.waiting) >= self._limits.queue:
            raise QueueFull(f"{len(self.waiting)} requests are waiting already", retry_after=1)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence, the newest of all."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that ended, or was never added; its holding is the caller's to save or to release."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def admit(self) -> list[Sequence]:
        """Move sequences from the queue into the batch, oldest first, until one does not fit; return them."""
        admitted: list[Sequence] = []
        claimed = sum(map(self._still_to_come, self.running))
        while self.waiting and len(self.running) < self._limits.running and self._admit(self.waiting[0], claimed):
            admitted.append(self.waiting.popleft())
            insort(self.running, admitted[-1], key=ARRIVAL)
            claimed += self._still_to_come(admitted[-1])
        return admitted

    def plan(self) -> list[Work]:
        """Return the next forward pass, with pages for it. May retract."""
        self._retract_on_schedule()
        parts = self._mixed() if self._limits.mixed else self._alternate()
        for sequence, count in sorted(parts, key=lambda part: part[0].key):
            if sequence.holding is not None:
                self._grow(sequence, sequence.holding, sequence.computed + count)
        return [self._work(each, each.holding, count) for each, count in parts if each.holding is not None]

    # Admission

    def _admit(self, sequence: Sequence, claimed: int) -> bool:
        """Give `sequence` its slot, or a row with what the tree knows of its ids, if there is room for the rest.

        `claimed`: pages that those who run have a claim on.
        """
        # The last known id is computed again even where its KV is there: its logits are needed.
        holding = self._slots.restore(sequence.session, min(sequence.reuse, sequence.length - 1))
        if holding is not None:
            missing = self._cache.missing_pages(holding, self._claim(sequence))
            if not self._make_room(sequence, claimed + missing, 0):
                return False
            sequence.admit(holding, inherited=True)
            return True
        prefix = self._cache.tree.match(sequence.ids[:-1])
        self._cache.tree.lock(prefix.node)  # or making room might take it
        try:
            return self._admit_from(prefix, sequence, claimed)
        finally:
            self._cache.tree.unlock(prefix.node)

    def _admit_from(self, prefix: Prefix, sequence: Sequence, claimed: int) -> bool:
        missing = self._cache.pool.pages_for(self._claim(sequence)) - len(prefix.pages)
        if not self._make_room(sequence, claimed + missing, 1):
            return False
        sequence.admit(self._cache.open(prefix), inherited=False)
        return True

    def _make_room(self, sequence: Sequence, pages: int, rows: int) -> bool:
        """Evict slots, if that suffices for so many pages and rows; say whether they can be had."""
        if self._room.there(pages, rows):
            return True
        giving_way = self._giving_way(sequence)
        return self._room.possible(pages, rows, giving_way) and self._room.make(pages, rows, giving_way)

    def _still_to_come(self, sequence: Sequence) -> int:
        """Return the pages that a running sequence has a claim on and does not have yet."""
        holding = sequence.holding
        return self._cache.missing_pages(holding, self._claim(sequence)) if holding is not None else 0

    def _claim(self, sequence: Sequence) -> int:
        """Return the length that must fit. Who was retracted once comes back for good: to all that it may come to."""
        return sequence.limit if sequence.retracted else min(sequence.limit, sequence.length + self._limits.headroom)

    def _giving_way(self, sequence: Sequence) -> list[Slot]:
        lent = {other.session for other in self.running if other.session is not None}
        queued = [other.session for other in self.waiting if other.session is not None and other is not sequence]
        return [slot for slot in self._slots.evictable(lent, queued) if slot.key != sequence.session]

    # Passes

    def _alternate(self) -> list[Part]:
        """Prefill chunks and decodes take turns, so that neither starves the other."""
        prefill = [sequence for sequence in self.running if not sequence.decoding]
        decode = [(sequence, 1) for sequence in self.running if sequence.decoding]
        self._prefilled_last = bool(prefill) and not (decode and self._prefilled_last)
        return self._chunks(prefill, self._limits.chunk) if self._prefilled_last else decode

    def _mixed(self) -> list[Part]:
        """Every decode, and prefill chunks for what is left of the budget: a token at least."""
        decode = [(sequence, 1) for sequence in self.running if sequence.decoding]
        prefill = [sequence for sequence in self.running if not sequence.decoding]
        return decode + self._chunks(prefill, max(1, self._limits.chunk - len(decode)))

    def _chunks(self, prefill: list[Sequence], budget: int) -> list[Part]:
        parts: list[Part] = []
        for sequence in prefill:
            if count := min(budget, sequence.extend_length):
                parts.append((sequence, count))
                budget -= count
        return parts

    def _grow(self, sequence: Sequence, holding: Holding, length: int) -> None:
        """Allocate pages up to `length`, if need be at the cost of everybody newer; `sequence` may be the newest."""
        missing = self._cache.missing_pages(holding, length)
        if not self._room.there(missing, 0) and not self._room.make(missing, 0, self._giving_way(sequence)):
            while not self._room.there(missing, 0):
                newest = self.running[-1]
                if newest is sequence and len(self.running) == 1:
                    raise AccountingError(f"sequence {sequence.key} alone does not fit: {missing} pages are missing")
                self._retract(newest)
                if newest is sequence:
                    return
        self._cache.grow(holding, length)

    def _retract_on_schedule(self) -> None:
        self._passes += 1
        if self._limits.retract_every and self._passes % self._limits.retract_every == 0:
            # One that has produced nothing since its admission would never get through a prompt of many chunks.
            for sequence in [sequence for sequence in self.running if sequence.sampled][-1:]:
                self._retract(sequence)

    def _retract(self, sequence: Sequence) -> None:
        """Release: KV is wiped, the slot's included, tokens stay, and the place in the queue is the old one."""
        if sequence.holding is not None and not self._slots.release(sequence.session, "retracted"):
            self._cache.release(sequence.holding)
        sequence.retract()
        self.running.remove(sequence)
        insort(self.waiting, sequence, key=ARRIVAL)
        self.retracts += 1

    def _work(self, sequence: Sequence, holding: Holding, count: int) -> Work:
        end = sequence.computed + count
        return Work(
            sequence,
            SequenceStep(
                key=sequence.key,
                tokens=sequence.ids,
                start=sequence.computed,
                end=end,
                pages=self._cache.pages(holding),
                sample=sequence.sample if end == sequence.length < sequence.limit else None,
                prompt_logprobs_from=sequence.prompt_logprobs_from,
                prompt_top_logprobs=sequence.sample.top_logprobs,
                kept=holding.committed,
            ),
        )
