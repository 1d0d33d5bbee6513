"""The small parts, each alone: framing, scopes, templates, tokens, the watchdog."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth_api import wire
from berth_api.errors import InvalidRequest
from berth_gateway.bodies import decode_json, explain
from berth_gateway.events import EventReader, Garbled, pack, unpack
from berth_gateway.scope import Scope
from berth_gateway.settings import StreamSettings
from berth_gateway.sse import ClientStream, EventId
from berth_gateway.template import ChatTemplate
from berth_gateway.watchdog import Watchdog

# Worker events ----------------------------------------------------------------------------------------------------

EVENTS = [wire.Started(3, 1), wire.Tokens([1, 2], "a\n\nb"), wire.Finished("h", wire.FinishReason("length"), 2, "")]
WHOLE = b": \n\n" + b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n: \n\n" for event in EVENTS)


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_events_come_whole_however_the_bytes_are_cut(cuts):
    reader = EventReader(1 << 16)
    borders = [0, *sorted(cuts), len(WHOLE)]
    found = [event for start, end in pairwise(borders) for event in reader.feed(WHOLE[start:end])]
    assert found == EVENTS


@pytest.mark.parametrize(
    "data", [b"data: {\n\n", b"event: x\n\n", b'data: {"event":"tokens"}\n\n', b"data: \xff\n\n", b"a" * 200]
)
def test_what_no_worker_says_is_garbled(data):
    with pytest.raises(Garbled):
        list(EventReader(100).feed(data))


def test_good_events_before_a_bad_one_are_not_lost():
    reader = EventReader(100).feed(b"data: " + msgspec.json.encode(EVENTS[0]) + b"\n\nnonsense\n\n")
    assert next(reader) == EVENTS[0]
    with pytest.raises(Garbled):
        next(reader)


@given(st.lists(st.integers(0, 2**31 - 1)))
def test_ids_are_packed_and_unpacked(ids):
    assert unpack(pack(ids)) == ids


@pytest.mark.parametrize("ids", [[-1], [2**31], [2**70]])
def test_what_is_no_token_id(ids):
    with pytest.raises(Garbled):
        pack(ids)


# Event ids --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**8), st.integers(0, 10**7), st.integers(0, 99), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_an_event_id_is_read_back(ids, chars, same, life, crc):
    made = EventId("turn-1", ids, chars, crc, life, same)
    assert EventId.parse(str(made)) == made


# Bodies -----------------------------------------------------------------------------------------------------------


def test_the_field_is_read_from_the_decoders_words():
    assert explain("Expected `int`, got `str` - at `$.a.b[1]`") == (
        "a.b[1]: Expected `int`, got `str`",
        {"field": "a.b[1]"},
    )
    assert explain("Object contains unknown field `x` - at `$.a`")[1] == {"field": "a.x"}
    assert explain("Object missing required field `x`")[1] == {"field": "x"}
    assert explain("Expected `object`, got `array`") == ("Expected `object`, got `array`", {})


@given(st.binary(max_size=200))
def test_no_bytes_get_past_the_decoder_with_another_error(data):
    decoder = msgspec.json.Decoder(wire.StopRequest)
    with suppress(InvalidRequest):
        decode_json(data, decoder)


# Scopes -----------------------------------------------------------------------------------------------------------


async def test_a_scope_breaks_off_its_body():
    async with Scope() as scope:
        asyncio.get_running_loop().call_soon(scope.interrupt)
        await asyncio.sleep(60)
    assert scope.interrupted
    await asyncio.sleep(0)


async def test_an_interrupt_from_within_a_body_that_ends_does_nothing():
    async with Scope() as scope:
        scope.interrupt()
    assert not scope.interrupted
    await asyncio.sleep(0)
    scope.interrupt()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_cancellation_from_outside_goes_through():
    async def body():
        async with Scope() as scope:
            scopes.append(scope)
            await asyncio.sleep(60)

    scopes: list[Scope] = []
    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    task.cancel()
    scopes[0].interrupt()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_inner_scope_of_two_ends_alone():
    async with Scope() as outer:
        async with Scope() as inner:
            inner.interrupt()
            await asyncio.sleep(60)
        assert inner.interrupted
    assert not outer.interrupted


async def test_both_scopes_interrupted_at_once():
    async with Scope() as outer:
        async with Scope() as inner:
            inner.interrupt()
            outer.interrupt()
            await asyncio.sleep(60)
        pytest.fail("the outer scope goes on")
    assert outer.interrupted
    await asyncio.sleep(0)


# The watchdog -----------------------------------------------------------------------------------------------------


async def test_silence_alone_is_no_death():
    asked, dead = [], asyncio.Event()

    async def healthy() -> bool:
        asked.append(1)
        return len(asked) < 3

    dog = Watchdog(0.005, healthy, dead.set)
    await asyncio.wait_for(dead.wait(), 5)
    assert len(asked) == 3
    dog.end()


async def test_a_beating_worker_is_not_asked():
    loop = asyncio.get_running_loop()

    async def healthy() -> bool:
        pytest.fail("asked")

    dog = Watchdog(0.05, healthy, lambda: pytest.fail("dead"))
    until = loop.time() + 0.15
    while loop.time() < until:
        dog.beat()
        await asyncio.sleep(0)
    dog.end()


# A client's buffer ------------------------------------------------------------------------------------------------


class Sink:
    """A response that takes what it is given, when its window is open."""

    def __init__(self) -> None:
        self.data = b""
        self.open = asyncio.Event()

    async def write(self, data: bytes) -> None:
        await self.open.wait()
        self.data += data


async def test_what_was_put_is_written_together():
    stream, sink = ClientStream(StreamSettings()), Sink()
    sink.open.set()
    stream.put(b"a")
    stream.put(b"b")
    stream.end()
    await stream.pump(sink)
    assert sink.data == b"ab"
    stream.put(b"late")
    assert sink.data == b"ab"


async def test_a_client_that_stays_behind_is_gone():
    stream, sink = ClientStream(StreamSettings(buffer_bytes=10)), Sink()
    pump = asyncio.create_task(stream.pump(sink))
    stream.put(b"x")
    await asyncio.sleep(0)
    stream.put(b"y" * 11)
    assert stream.overrun
    sink.open.set()
    with pytest.raises(ConnectionResetError):
        await pump
    assert len(sink.data) <= 10


async def test_what_is_there_before_a_client_reads_is_not_its_delay():
    """As the whole of a turn that was committed before."""
    stream, sink = ClientStream(StreamSettings(buffer_bytes=10)), Sink()
    sink.open.set()
    stream.put(b"a" * 100)
    stream.put(b"b")
    stream.end()
    await stream.pump(sink)
    assert sink.data == b"a" * 100 + b"b"


class Socket:
    """A transport that takes everything, or says how much waits in it."""

    def __init__(self) -> None:
        self.data, self.waiting, self.closing = b"", 0, False

    def write(self, data: bytes) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.closing


@pytest.fixture
async def flowing():
    """A stream whose first bytes are out, with its socket and its response."""
    stream, sink, socket = ClientStream(StreamSettings()), Sink(), Socket()
    sink.open.set()
    stream.put(b"head")
    pump = asyncio.create_task(stream.pump(sink, socket))
    await asyncio.sleep(0)
    assert sink.data == b"head"
    yield stream, sink, socket
    stream.end()
    await pump


async def test_what_is_put_later_goes_to_the_socket_at_once(flowing):
    stream, sink, socket = flowing
    stream.put(b"x" * 20)
    stream.put(b"y")
    assert socket.data == b"14\r\n" + b"x" * 20 + b"\r\n1\r\ny\r\n"
    assert sink.data == b"head"


@pytest.mark.parametrize("state", [{"waiting": 1 << 17}, {"closing": True}], ids=["full", "closing"])
async def test_a_socket_that_cannot_take_it_leaves_it_to_the_response(flowing, state):
    stream, sink, socket = flowing
    vars(socket).update(state)
    stream.put(b"x")
    vars(socket).update({"waiting": 0, "closing": False})
    stream.put(b"y")  # behind what waits
    await asyncio.sleep(0)
    assert (sink.data, socket.data) == (b"headxy", b"")
    stream.put(b"z")
    assert socket.data == b"1\r\nz\r\n"


async def test_a_window_that_stays_shut_is_gone():
    stream, sink = ClientStream(StreamSettings(write_s=0.01)), Sink()
    stream.put(b"x")
    with pytest.raises(ConnectionResetError):
        await stream.pump(sink)


async def test_silence_is_filled_with_comments(eventually):
    stream, sink = ClientStream(StreamSettings(keep_alive_s=0.01)), Sink()
    sink.open.set()
    pump = asyncio.create_task(stream.pump(sink))
    await eventually(lambda: sink.data, "a comment")
    stream.end()
    await pump
    assert sink.data.replace(b": \n\n", b"") == b""


# Templates --------------------------------------------------------------------------------------------------------

APPENDING = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SYSTEM_FIRST = "{% if messages[0].role != 'system' %}SYS{% endif %}" + APPENDING
REWRITING = (
    "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}<{{ m.role }}>{{ m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
USER = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("source", [APPENDING, SYSTEM_FIRST])
def test_the_delta_is_what_the_template_adds(source):
    template = ChatTemplate(source, {"bos_token": "B"})
    whole = template.first([*USER, {"role": "assistant", "content": "yo"}, *USER])
    closing, delta = template.next(USER)
    assert closing == "<|end|>\n"
    assert template.first(USER) + "yo" + closing + delta == whole
    assert "B" not in delta


def test_a_template_that_rewrites_history_says_so():
    template = ChatTemplate(REWRITING, {})
    assert template.first(USER) == "<user>hi<assistant>"
    with pytest.raises(InvalidRequest, match="rewrites history"):
        template.next(USER)


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages.nothing.at.all }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages[0].content + 1 }}",
    ],
)
def test_what_a_template_refuses_is_the_clients_problem(source):
    with pytest.raises(InvalidRequest) as caught:
        ChatTemplate(source, {}).first(USER)
    assert caught.value.members["field"] == "messages"


def test_a_broken_template_is_named():
    with pytest.raises(InvalidRequest, match="broken"):
        ChatTemplate("{% for", {})
