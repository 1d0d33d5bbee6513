"""A turn, end to end: what a client sees, what the ledger keeps, what the worker is asked."""

from __future__ import annotations

import zlib

import numpy as np

from berth_api import heads


def packed(ids: list[int]) -> bytes:
    return np.asarray(ids, dtype="<i4").tobytes()


async def test_a_turn_streams_its_tokens_and_is_committed(fleet, ask, expected_ids):
    session = await fleet.client.open()
    told = await fleet.client.turn(**ask("hello", seed=7))
    assert told.names == ["turn.started", "token", "turn.committed"]
    asked = packed([256, *b"hello"])
    assert told.ids == expected_ids(b"", asked, 8, 7)
    assert told.text == "".join(map(chr, told.ids))
    committed = told.one("turn.committed")
    assert committed["head"] == heads.advance("", asked + packed(told.ids))
    assert (committed["turn_index"], committed["finish_reason"]) == (0, {"type": "length"})
    assert committed["usage"] == {"prompt_tokens": 6, "completion_tokens": 8, "cached_tokens": 0}
    status, view, headers = await fleet.client.call("GET", session["endpoint"])
    assert (status, view["turns"], view["tokens"], view["state"]) == (200, 1, 14, "resident")
    assert (view["head"], headers["ETag"]) == (committed["head"], f'"{committed["head"]}"')
    assert view["worker"] == fleet.first.id == told.one("turn.started")["worker"]


async def test_event_ids_grow_and_carry_the_crc_of_the_ids_so_far(fleet, ask):
    await fleet.client.open()
    told = await fleet.client.turn(**ask())
    ids: list[int] = []
    before = -1
    for event in told.events:
        ids += event.data.get("ids", [])
        turn, seq, crc = event.id.split(":")
        assert turn == told.one("turn.committed")["turn"]
        assert int(seq) > before
        assert int(crc, 16) == zlib.crc32(packed(ids))
        before = int(seq)
