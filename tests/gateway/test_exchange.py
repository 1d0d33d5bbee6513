"""One connection to a worker: what ends a call, what ends the connection, and when another call may have it."""

from __future__ import annotations

import asyncio

import pytest

from berth_gateway.exchange import Exchange, Lost, Refused

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSAL = b"HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\nbusy"


class Peer:
    """A server that answers each request with the next of `answers`, in pieces; None among them: it hangs up."""

    def __init__(self) -> None:
        self.answers: list[list[bytes | None]] = []
        self.bodies: list[bytes] = []
        self.gone = 0
        self.connections = 0

    async def serve(self, reader, writer) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.rsplit(b"Content-Length: ", 1)[1].split(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                for piece in self.answers.pop(0):
                    if piece is None:
                        return
                    writer.write(piece)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone += 1
            writer.close()


@pytest.fixture
async def peer():
    return Peer()


@pytest.fixture
async def connect(peer, eventually):
    """Open an exchange; `idle` and `closed` list what it reported."""
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    opened: list[Exchange] = []

    async def open_one(idle_s: float = 30.0):
        idle, closed = [], []
        host, port = server.sockets[0].getsockname()
        _, exchange = await asyncio.get_running_loop().create_connection(
            lambda: Exchange(idle.append, closed.append, idle_s), host, port
        )
        exchange.idle, exchange.closed = idle, closed
        opened.append(exchange)
        return exchange

    yield open_one
    for exchange in opened:
        exchange.close()
    await eventually(lambda: peer.gone == peer.connections, "the peer to notice")
    server.close()
    await server.wait_closed()


def post(exchange, body=b"{}", *, wants=b"end", told=None, accepted=lambda: None):
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)

    def hear(data: bytes):
        if told is not None:
            told.append(data)
        return data if wants in data else None

    return exchange.post(head, body, accepted, hear)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_an_answer_that_ended_leaves_the_connection_to_the_next(connect, peer, eventually):
    peer.answers = [[HEAD, chunk(b"one"), chunk(b"end"), b"0\r\n\r\n"]] * 2
    exchange, accepted = await connect(), []
    for calls in (1, 2):
        assert await post(exchange, accepted=lambda: accepted.append(1)) in (b"end", b"oneend")
        await eventually(lambda calls=calls: len(exchange.idle) == calls, "the answer's end")
    assert (len(accepted), peer.connections) == (2, 1)


async def test_nothing_is_said_after_the_result(connect, peer):
    peer.answers = [[HEAD, chunk(b"end")]]
    exchange, told = await connect(), []
    await post(exchange, told=told)
    exchange.data_received(chunk(b"late"))
    exchange.data_received(b"0\r\n\r\n")
    assert (told, exchange.idle) == ([b"end"], [exchange])


async def test_a_refusal_is_told_whole_and_leaves_the_connection(connect, peer):
    peer.answers = [[REFUSAL[:-2], REFUSAL[-2:]], [HEAD, chunk(b"end"), b"0\r\n\r\n"]]
    exchange = await connect()
    with pytest.raises(Refused) as refused:
        await post(exchange)
    assert (refused.value.status, refused.value.body) == (409, b"busy")
    assert await post(exchange) == b"end"


@pytest.mark.parametrize("answer", [[], [HEAD, chunk(b"one")], [HEAD[:-4]]], ids=["nothing", "a part", "half a head"])
async def test_a_connection_that_ends_too_soon(connect, peer, answer):
    peer.answers = [[*answer, None]]
    with pytest.raises(Lost):
        await post(await connect())


async def test_a_call_whose_connection_is_closed_is_lost(connect, peer, eventually):
    peer.answers = [[HEAD, chunk(b"one")]]
    exchange, told = await connect(), []
    call = asyncio.ensure_future(post(exchange, told=told))
    await eventually(lambda: told, "the first piece")
    exchange.close()
    with pytest.raises(Lost):
        await call


async def test_a_stream_that_ends_without_a_result_is_lost(connect, peer):
    peer.answers = [[HEAD, chunk(b"one"), b"0\r\n\r\n"]]
    with pytest.raises(Lost, match="before the turn"):
        await post(await connect())


async def test_a_call_that_is_cancelled_hangs_up(connect, peer, eventually):
    peer.answers = [[HEAD, chunk(b"one")]]
    exchange, told = await connect(), []
    call = asyncio.ensure_future(post(exchange, told=told))
    await eventually(lambda: told, "the first piece")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: peer.gone and exchange.closed, "the peer to notice")
    assert not exchange.idle


async def test_what_a_listener_raises_is_raised_and_hangs_up(connect, peer, eventually):
    peer.answers = [[HEAD, chunk(b"one"), chunk(b"two")]]
    exchange = await connect()

    def hear(data: bytes) -> None:
        raise ValueError(data.decode())

    with pytest.raises(ValueError, match="one"):
        await exchange.post(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"", lambda: None, hear)
    await eventually(lambda: exchange.closed, "the connection to be closed")


async def test_a_large_body_arrives_whole(connect, peer):
    peer.answers = [[HEAD, chunk(b"end"), b"0\r\n\r\n"]]
    body = bytes(range(256)) * 5_000
    await post(await connect(), body)
    assert peer.bodies == [body]


async def test_a_refusal_in_mid_body_leaves_nothing_that_could_be_used_again(connect, eventually):
    exchange = await connect()
    exchange.pause_writing()  # as the transport does where the peer does not read
    call = asyncio.ensure_future(post(exchange, b"x" * (1 << 20)))
    await asyncio.sleep(0)
    exchange.data_received(REFUSAL)
    exchange.resume_writing()
    with pytest.raises(Refused):
        await call
    await eventually(lambda: exchange.closed, "the connection to be closed")
    assert (exchange.idle, exchange.usable) == ([], False)


async def test_an_unused_connection_closes_itself(connect, peer, eventually):
    peer.answers = [[HEAD, chunk(b"end"), b"0\r\n\r\n"]]
    exchange = await connect(idle_s=0.01)
    await post(exchange)
    await eventually(lambda: exchange.closed, "its time")


async def test_bytes_that_nobody_asked_for_close_it(connect, peer, eventually):
    peer.answers = [[HEAD, chunk(b"end"), b"0\r\n\r\n"], [REFUSAL]]
    exchange = await connect()
    await post(exchange)
    await eventually(lambda: exchange.idle, "the answer's end")
    exchange.data_received(b"HTTP/1.1 200 OK\r\n")
    await eventually(lambda: exchange.closed, "the connection to be closed")
    with pytest.raises(Lost):
        await post(exchange)
