"""Heads: the ids of histories.

A head names everything before it, as a git commit does: equal heads, equal histories. Gateway and worker each compute
it from the ids they hold, so that neither has to believe the other.
"""

from __future__ import annotations

import hashlib
import uuid

ROOT = ""
"""The head of a session without a turn."""

ID_BYTES = 4
"""Bytes of one packed token id (little-endian int32)."""


def advance(head: str, ids: bytes) -> str:
    """Return the head of the history `head` followed by one turn.

    `ids` are the turn's packed little-endian int32 token ids, input and output together.
    """
    if len(ids) % ID_BYTES:
        raise ValueError(f"packed ids must be a multiple of {ID_BYTES} bytes, got {len(ids)}")
    return hashlib.sha1(head.encode("ascii") + ids, usedforsecurity=False).hexdigest()


def turn_id(uid: str, idempotency_key: str) -> str:
    """Return the id of a turn: the same key on the same session is the same turn at every gateway."""
    return str(uuid.uuid5(uuid.UUID(uid), idempotency_key))


def default_seed(uid: str, parent: str, turn: str) -> int:
    """Return the seed of a turn that brings none: 63 bits of H(uid, parent head, turn id)."""
    digest = hashlib.sha256(f"{uid}/{parent}/{turn}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
