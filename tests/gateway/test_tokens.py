"""Words to ids and back: what a turn's delta is, and that stored ids read as their stream did."""

from __future__ import annotations

import asyncio
import threading

import pytest

from berth_api.errors import InvalidRequest
from berth_api.public import Message, TurnCreate
from berth_api.wire import FinishReason, ModelInfo, Sampling
from berth_gateway.keeper import Hint, _encode
from berth_gateway.tokens import ModelText

BOS, END, SYSTEM, USER, ASSISTANT = range(256, 261)


@pytest.fixture
def model(stub, tmp_path) -> ModelText:
    for name, data in stub.tokenizer_files().items():
        (tmp_path / name).write_bytes(data)
    return ModelText(ModelInfo("stub", "f", stub.VOCAB, 4096, BOS, [END], {}), tmp_path)


def ids(packed: bytes) -> list[int]:
    return [int.from_bytes(packed[n : n + 4], "little") for n in range(0, len(packed), 4)]


def chat(*texts: str) -> TurnCreate:
    return TurnCreate(messages=[Message("user", text) for text in texts])


def test_text_gets_its_bos_once(model):
    assert ids(model.encode(TurnCreate(input="hi"), parent="", tail=None)) == [BOS, *b"hi"]
    assert ids(model.encode(TurnCreate(input="hi"), parent="h", tail=None)) == [*b"hi"]
    assert ids(model.encode(TurnCreate(input_ids=[BOS, 1]), parent="h", tail=None)) == [1]
    assert ids(model.encode(TurnCreate(input_ids=[1, BOS]), parent="h", tail=None)) == [1, BOS]


def test_a_first_chat_turn_is_the_whole_template(model):
    assert ids(model.encode(chat("hi"), parent="", tail=None)) == [BOS, USER, *b"hi", END, ASSISTANT]


def test_a_later_chat_turn_is_the_delta_behind_the_models_own_end(model):
    assert ids(model.encode(chat("hi"), parent="h", tail=END)) == [USER, *b"hi", END, ASSISTANT]


def test_a_turn_that_was_cut_short_is_closed_first(model):
    assert ids(model.encode(chat("hi"), parent="h", tail=ord("x"))) == [END, USER, *b"hi", END, ASSISTANT]


def test_text_parts_are_joined(model):
    parts = Message("user", [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}])
    body = TurnCreate(messages=[parts])
    assert model.encode(body, parent="", tail=None) == model.encode(chat("hi"), parent="", tail=None)


async def test_a_long_text_does_not_hold_up_the_loop(model):
    """The tokenizer works beside the interpreter, not instead of it: leases are renewed and streams go on meanwhile."""
    body = TurnCreate(input="a" * 2_000_000)
    work = asyncio.create_task(asyncio.to_thread(model.encode, body, parent="h", tail=None))
    beats = 0
    while not work.done():
        await asyncio.sleep(0.001)
        beats += 1
    assert len(await work) == 4 * 2_000_000
    assert beats > 20


@pytest.mark.parametrize(
    ("body", "beside"),
    [
        (TurnCreate(input="hi"), False),
        (TurnCreate(input="a" * 5_000), True),
        (TurnCreate(messages=[Message("user", "hi")]), False),
        (TurnCreate(messages=[Message("user", "")] * 1_000), True),
    ],
)
async def test_what_takes_long_is_encoded_beside_the_loop(body, beside):
    class Thread:
        def encode(self, *_, **__):
            return threading.get_ident()

    hint = Hint("uid", "default", "f", "", 0)
    assert (await _encode(Thread(), body, hint) != threading.get_ident()) is beside


def test_a_model_without_a_tokenizer_takes_ids(tmp_path):
    bare = ModelText(ModelInfo("bare", "f", 10, 64, None, [], {}), tmp_path)
    assert ids(bare.encode(TurnCreate(input_ids=[1, 2]), parent="", tail=None)) == [1, 2]
    for body in (TurnCreate(input="hi"), chat("hi")):
        with pytest.raises(InvalidRequest):
            bare.encode(body, parent="", tail=None)
    assert bare.decode(b"\x01\0\0\0") == ""


def packed(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


@pytest.mark.parametrize(
    ("output", "finish", "sampling", "text"),
    [
        (b"hello", FinishReason("length"), Sampling(), "hello"),
        (b"hello", FinishReason("stop", "lo"), Sampling(), "hel"),
        (b"hello", FinishReason("stop", "lo"), Sampling(no_stop_trim=True), "hello"),
        (b"hello", FinishReason("stop", ord("o")), Sampling(), "hell"),
        (b"hello", FinishReason("stop"), Sampling(), "hello"),
        ("é".encode()[:1], FinishReason("length"), Sampling(), "\ufffd"),
    ],
)
def test_stored_ids_read_as_their_stream_did(model, output, finish, sampling, text):
    assert model.output_text(packed(*b"ask"), packed(*output), finish, sampling) == text


def test_special_tokens_are_skipped_unless_wanted(model):
    output = packed(*b"hi", END)
    assert model.output_text(b"", output, FinishReason("stop", END), Sampling()) == "hi"
    wanted = Sampling(skip_special_tokens=False, no_stop_trim=True)
    assert model.output_text(b"", output, FinishReason("stop", END), wanted) == "hi<|end|>"
