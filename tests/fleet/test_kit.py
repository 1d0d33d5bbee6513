"""The instruments themselves: a strict reader that misses nothing, a proxy that acts at the exact byte."""

from __future__ import annotations

import asyncio
import json
import os
import socket

import numpy as np
import pytest
from safetensors.numpy import load_file

from fleetkit.models import write_random_llama
from fleetkit.procs import alive, children, listener
from fleetkit.proxy import Proxy
from fleetkit.sse import ProtocolError, Reader, Transcript, ids_crc


def frame(name: str, seq: int, so_far: list[int], **data) -> bytes:
    return f"event: {name}\nid: t:{seq}:{ids_crc(so_far):08x}\ndata: {json.dumps(data)}\n\n".encode()


def take(*frames: bytes) -> Transcript:
    seen, reader = Transcript(), Reader()
    for event in reader.feed(b"".join(frames)):
        seen.add(event)
    return seen


STARTED = frame("turn.started", 0, [], turn="t")
ONE = frame("token", 1, [5], ids=[5], text="a")
TWO = frame("token", 2, [5, 6], ids=[6], text="b")
COMMITTED = frame("turn.committed", 3, [5, 6], turn="t", head="h")


def test_a_whole_stream_is_read():
    seen = take(STARTED, b": \n\n", ONE, TWO, COMMITTED)
    assert (seen.ids, seen.text, seen.outcome) == ([5, 6], "ab", "committed")


def test_slices_do_not_matter():
    reader, seen = Reader(), Transcript()
    for byte in STARTED + ONE + TWO + COMMITTED:
        for event in reader.feed(bytes([byte])):
            seen.add(event)
    assert seen.ids == [5, 6]


def test_a_stream_without_its_end_is_broken():
    assert take(STARTED, ONE).outcome == "broken"


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        ([STARTED, ONE, ONE], "go back"),
        ([STARTED, TWO], "does not fit"),
        ([STARTED, ONE, TWO, COMMITTED, COMMITTED], "after the terminal"),
        ([b"event: token\ndata: {}\n\n"], "needs event, id and data"),
        ([b"data: {}\ndata: {}\n\n"], "unexpected line"),
        ([frame("done", 0, [])], "unknown event"),
        ([frame("turn.started", 0, [], turn="other")], "in the stream of"),
        ([b"event: token\nid: nonsense\ndata: {}\n\n"], "is not <turn>"),
    ],
)
def test_what_is_not_in_the_contract_is_an_error(frames, fault):
    with pytest.raises(ProtocolError, match=fault):
        take(*frames)


def test_a_restart_forgets_the_ids_so_far():
    seen = take(
        STARTED, ONE, frame("turn.restarted", 2, [], reason="differs"), frame("token", 3, [7], ids=[7], text="c")
    )
    assert seen.ids == [7]


async def echo_server() -> asyncio.Server:
    async def echo(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    return await asyncio.start_server(echo, "127.0.0.1", 0)


@pytest.fixture
async def proxy():
    server = await echo_server()
    made = await Proxy(server.sockets[0].getsockname()[1]).start()
    yield made
    await made.close()
    server.close()


async def test_a_proxy_acts_before_the_pattern_passes(proxy):
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

    async def stop() -> bool:
        return False

    proxy.down.on(b"END", stop)
    writer.write(b"before END after")
    assert await reader.readexactly(7) == b"before "
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_proxy_keeps_what_is_held_even_when_its_sender_is_gone():
    got = asyncio.Queue[bytes]()

    async def sink(reader, writer):
        got.put_nowait(await reader.read())
        writer.close()

    server = await asyncio.start_server(sink, "127.0.0.1", 0)
    proxy = await Proxy(server.sockets[0].getsockname()[1]).start()
    proxy.up.hold()
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"late")
    await writer.drain()
    writer.close()
    await asyncio.sleep(0)
    assert got.empty()
    proxy.up.release()
    assert await asyncio.wait_for(got.get(), 5) == b"late"
    await proxy.close()
    server.close()


def test_a_listener_is_found_by_its_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listener(port) == os.getpid()
    with pytest.raises(LookupError, match=str(port)):
        listener(port)


async def test_children_are_found_and_the_dead_are_dead():
    child = await asyncio.create_subprocess_exec("sleep", "60")
    assert child.pid in children(os.getpid())
    assert alive(child.pid)
    child.kill()
    await child.wait()
    assert not alive(child.pid)


def test_the_random_model_is_the_same_for_a_seed(tmp_path):
    first, again, other = (
        load_file(write_random_llama(tmp_path / name, seed=seed) / "model.safetensors")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    name = "model.layers.0.self_attn.q_proj.weight"
    assert np.array_equal(first[name], again[name])
    assert not np.array_equal(first[name], other[name])
