"""Server-sent events, however the stream is sliced."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from berth_cli.sse import EventReader, ServerEvent

STREAM = (
    b": keep-alive\n\n"
    b'event: token\nid: t:1:ab\ndata: {"text": "\xc3\xa9"}\n\n'
    b"event: turn.committed\r\nid: t:2:cd\r\ndata: one\r\ndata: two\r\n\r\n"
    b": bye\n\nevent: nothing\n\ndata:bare\n\n"
)
EVENTS = [
    ServerEvent("token", b'{"text": "\xc3\xa9"}', "t:1:ab"),
    ServerEvent("turn.committed", b"one\ntwo", "t:2:cd"),
    ServerEvent("message", b"bare", "t:2:cd"),
]


def test_reads_events_and_leaves_out_comments() -> None:
    assert list(EventReader().feed(STREAM)) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_slices_do_not_matter(cuts: list[int]) -> None:
    reader, ends = EventReader(), [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(ends)]
    assert [event for piece in pieces for event in reader.feed(piece)] == EVENTS


def test_half_an_event_is_none() -> None:
    assert list(EventReader().feed(b"data: half\n")) == []
