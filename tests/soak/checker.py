"""Was every promise about committed turns kept? A judgement over what clients saw and what histories say at the end.

No linearizability search is needed: each turn's input is unique, so a history can be read as the list of attempts that
made it. Pure: facts in, violations out, and each rule has a test in which it fails.

| rule | violated when |
| --- | --- |
| chain | a listed head is not sha1(head before ‖ ids of the turn), or the session's head, turns or tokens differ |
| lost | a turn that was acknowledged as committed is not in its session's history |
| doubled | a turn's input is in a history more than once |
| altered | a committed turn's ids in the history are not those that its client was sent |
| contradicted | a turn in the history does not begin with the ids that were streamed before a failure |
| misplaced | a committed turn is at another position than the one acknowledged |
| uncommitted | a turn of which a client was told that it does not count (aborted, refused) is in the history |
| foreign | a history has a turn that nobody sent to this session |
| order | of one session, a turn acknowledged before another was sent stands behind it |
| outcome | GET …/turns/{id} at the end contradicts the history |
| overlap | two turns of one session were acknowledged with the same position |
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from berth_api import heads

Outcome = Literal["committed", "aborted", "refused", "unknown"]
"""`unknown`: the connection broke, or the terminal event said so; such a turn may be in the history or not."""


@dataclass(frozen=True)
class Attempt:
    """One turn as its client saw it, all requests with the same Idempotency-Key together. Times are monotonic seconds.

    `output_ids` are those sent before the acknowledgement; for an unknown turn they are not compared.
    """

    session: str
    input_ids: tuple[int, ...]
    outcome: Outcome
    output_ids: tuple[int, ...] = ()
    seen_ids: tuple[int, ...] = ()
    """The most that any request of this turn was streamed, finished or not."""
    turn: str = ""
    head: str = ""
    position: int | None = None
    sent_at: float = 0.0
    ended_at: float = 0.0


@dataclass(frozen=True)
class Entry:
    """One turn of a history, as read at the end."""

    input_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    head: str
    turn: str = ""


@dataclass(frozen=True)
class History:
    """A session at the end: its view and its turns. `fork_of` names the source and how many turns were taken of it."""

    session: str
    head: str
    turns: int
    tokens: int
    entries: tuple[Entry, ...]
    fork_of: tuple[str, int] | None = None
    outcomes: Mapping[str, str] = field(default_factory=dict)
    """What GET …/turns/{id} says at the end, by turn id."""


@dataclass(frozen=True, order=True)
class Violation:
    session: str
    rule: str
    detail: str


def check(attempts: Sequence[Attempt], histories: Iterable[History]) -> list[Violation]:
    """Return every violation. Sessions without a history here (deleted ones) are not judged."""
    by_session: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_session[attempt.session].append(attempt)
    known = {history.session: history for history in histories}
    found = [
        violation for history in known.values() for violation in _session(history, by_session[history.session], known)
    ]
    return sorted(set(found))


def _session(history: History, attempts: list[Attempt], known: Mapping[str, History]) -> Iterator[Violation]:
    for rule, detail in (
        *_chain(history),
        *_committed(history, attempts),
        *_not_committed(history, attempts),
        *_contradicted(history, attempts),
        *_foreign(history, attempts, known),
        *_order(history, attempts),
        *_outcomes(history),
    ):
        yield Violation(history.session, rule, detail)


Finding = tuple[str, str]


def pack(ids: Sequence[int]) -> bytes:
    """Packed little-endian int32, as heads are made of."""
    return struct.pack(f"<{len(ids)}i", *ids)


def _chain(history: History) -> Iterator[Finding]:
    head, tokens = heads.ROOT, 0
    for position, entry in enumerate(history.entries):
        head = heads.advance(head, pack(entry.input_ids + entry.output_ids))
        tokens += len(entry.input_ids) + len(entry.output_ids)
        if entry.head != head:
            yield "chain", f"turn {position} is listed under {entry.head}, its ids give {head}"
    if history.head != head:
        yield "chain", f"the session's head is {history.head}, its turns give {head}"
    if (history.turns, history.tokens) != (len(history.entries), tokens):
        said = f"{history.turns} turns of {history.tokens} tokens"
        yield "chain", f"the session says {said}, its history has {len(history.entries)} of {tokens}"


def _places(history: History) -> dict[tuple[int, ...], list[int]]:
    places: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, entry in enumerate(history.entries):
        places[entry.input_ids].append(position)
    return places


def _committed(history: History, attempts: list[Attempt]) -> Iterator[Finding]:
    places = _places(history)
    for input_ids, at in places.items():
        if len(at) > 1:
            yield "doubled", f"the turn {_name(input_ids)} is at positions {at}"
    acknowledged = [attempt for attempt in attempts if attempt.outcome == "committed"]
    for position, count in Counter(attempt.position for attempt in acknowledged).items():
        if count > 1 and position is not None:
            yield "overlap", f"{count} turns were acknowledged at position {position}"
    for attempt in acknowledged:
        at = places.get(attempt.input_ids, [])
        if not at:
            yield "lost", f"{_name(attempt.input_ids)} was acknowledged at position {attempt.position}"
            continue
        entry = history.entries[at[0]]
        if attempt.position is not None and attempt.position not in at:
            yield "misplaced", f"{_name(attempt.input_ids)} was acknowledged at {attempt.position}, stands at {at[0]}"
        if entry.output_ids != attempt.output_ids or (attempt.head and attempt.head != entry.head):
            yield "altered", f"{_name(attempt.input_ids)} at {at[0]}: {entry.output_ids} for {attempt.output_ids}"


def _not_committed(history: History, attempts: list[Attempt]) -> Iterator[Finding]:
    places = _places(history)
    for attempt in attempts:
        if attempt.outcome in {"aborted", "refused"} and attempt.input_ids in places:
            yield (
                "uncommitted",
                f"{_name(attempt.input_ids)} was {attempt.outcome}, stands at {places[attempt.input_ids]}",
            )


def _contradicted(history: History, attempts: list[Attempt]) -> Iterator[Finding]:
    places = _places(history)
    for attempt in attempts:
        for at in places.get(attempt.input_ids, []):
            if history.entries[at].output_ids[: len(attempt.seen_ids)] != attempt.seen_ids:
                yield "contradicted", f"{_name(attempt.input_ids)} at {at} is not what was streamed: {attempt.seen_ids}"


def _foreign(history: History, attempts: list[Attempt], known: Mapping[str, History]) -> Iterator[Finding]:
    inherited: tuple[Entry, ...] = ()
    if history.fork_of is not None:
        source, count = history.fork_of
        if source in known:
            inherited = known[source].entries[:count]
            if tuple(entry.head for entry in history.entries[:count]) != tuple(entry.head for entry in inherited):
                yield "foreign", f"the first {count} turns are not those of {source}"
        else:
            inherited = history.entries[:count]
    sent = {attempt.input_ids for attempt in attempts}
    for position, entry in enumerate(history.entries[len(inherited) :], start=len(inherited)):
        if entry.input_ids not in sent:
            yield "foreign", f"turn {position} ({_name(entry.input_ids)}) was never sent to this session"


def _order(history: History, attempts: list[Attempt]) -> Iterator[Finding]:
    places = _places(history)
    placed = [(attempt, places[attempt.input_ids][0]) for attempt in attempts if attempt.input_ids in places]
    for first, before in placed:
        for second, after in placed:
            if first.outcome == "committed" and first.ended_at < second.sent_at and before > after:
                yield (
                    "order",
                    f"{_name(first.input_ids)} ended before {_name(second.input_ids)} was sent, stands behind it",
                )


def _outcomes(history: History) -> Iterator[Finding]:
    present = {entry.turn for entry in history.entries if entry.turn}
    for turn, state in history.outcomes.items():
        if state == "committed" and present and turn not in present:
            yield "outcome", f"turn {turn} is said to be committed and is not in the history"
        if state == "aborted" and turn in present:
            yield "outcome", f"turn {turn} is said to be aborted and is in the history"


def _name(input_ids: Sequence[int]) -> str:
    """Short enough to read, long enough to find."""
    return "[" + " ".join(map(str, input_ids[:8])) + ("]" if len(input_ids) <= 8 else " …]")
