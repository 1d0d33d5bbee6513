"""One HTTP answer, however it is framed and wherever it is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth_gateway.answer import AnswerReader, BadAnswer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
WHOLE = {
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n\r\n you\r\n0\r\nTrailer: 1\r\n\r\n",
    "length": HEAD + b"content-length: 11\r\n\r\nhello\r\n you",
    "after an interim answer": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    + HEAD
    + b"Content-Length: 11\r\n\r\nhello\r\n you",
}


def read(slices) -> tuple[bytes, AnswerReader]:
    reader = AnswerReader()
    return b"".join(reader.feed(one) for one in slices), reader


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
@given(cuts=st.sets(st.integers(0, 150)))
def test_any_slices_give_the_same_body(data, cuts):
    ends = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    body, reader = read(data[a:b] for a, b in pairwise(ends))
    assert (body, reader.status, reader.ended, reader.reusable) == (b"hello\r\n you", 200, True, True)


def test_an_answer_without_a_length_ends_with_its_connection():
    body, reader = read([HEAD + b"\r\nhel", b"lo"])
    assert (body, reader.ended) == (b"hello", False)
    assert reader.cut()
    assert reader.ended


@pytest.mark.parametrize("kind", WHOLE)
def test_an_answer_that_stops_short_has_not_ended(kind):
    _, reader = read([WHOLE[kind][:-1]])
    assert not reader.ended
    assert not reader.cut()


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"Content-Length: 2\r\n\r\nok and more",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK",
    ],
    ids=["it says close", "old", "surplus", "surplus behind chunks"],
)
def test_a_connection_that_may_not_be_used_again(data):
    body, reader = read([data])
    assert (body, reader.ended, reader.reusable) == (b"ok", True, False)


def test_a_refusal_without_a_body_ends_at_once():
    _, reader = read([b"HTTP/1.1 204 No Content\r\n\r\n"])
    assert (reader.status, reader.ended) == (204, True)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nlong\r\n",
        HEAD + b"X: " + b"x" * (1 << 17),
    ],
    ids=["ssh", "version", "length", "sign", "prefix", "too long a chunk", "endless head"],
)
def test_what_is_no_answer_is_said_to_be_none(data):
    with pytest.raises(BadAnswer):
        read([data])
