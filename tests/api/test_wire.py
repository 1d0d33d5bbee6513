import msgspec
import pytest

from berth_api import public, wire


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"top_k": 0}', "top_k"),
        (b'{"top_k": -2}', r"\$\.top_k"),
        (b'{"temperature": -0.1}', r"\$\.temperature"),
        (b'{"temperature": 1e400}', r"\$\.temperature"),
        (b'{"top_p": 0}', r"\$\.top_p"),
        (b'{"max_new_tokens": true}', r"\$\.max_new_tokens"),
        (b'{"max_new_tokens": 1e30}', r"\$\.max_new_tokens"),
        (b'{"seed": 9223372036854775808}', r"\$\.seed"),
        (b'{"stop": [""]}', r"\$\.stop"),
        (b'{"stop_token_ids": [-1]}', r"\$\.stop_token_ids"),
        (b'{"temprature": 1}', "temprature"),
    ],
)
def test_bad_sampling_is_refused_by_field(body: bytes, field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(body, type=wire.Sampling)


def test_stop_reads_as_none_one_or_several() -> None:
    read = [
        msgspec.json.decode(body, type=wire.Sampling).stops for body in (b"{}", b'{"stop":"a"}', b'{"stop":["a","b"]}')
    ]
    assert read == [(), ("a",), ("a", "b")]


def test_a_turn_keeps_its_ids_as_bytes_over_the_wire() -> None:
    turn = wire.TurnRequest(
        session="default/alice",
        uid="u",
        turn="t",
        epoch=7,
        attempt=2,
        parent="",
        input_ids=b"\x01\x00\x00\x00",
        seed=(1 << 63) - 1,
        sampling=wire.Sampling(stop=["\n"], temperature=0.0),
        fingerprint="f",
        history=[b"\x02\x00\x00\x00", b""],
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(turn), type=wire.TurnRequest) == turn


@pytest.mark.parametrize(
    "event",
    [
        wire.Started(prompt_tokens=3, cached_tokens=1),
        wire.Tokens(ids=[1, 2], text="é", logprobs=[wire.TokenLogprob(-0.5, 1, [(-0.5, 1)])]),
        wire.Finished(head="ab", finish_reason=wire.FinishReason("stop", 2), completion_tokens=2, text=""),
        wire.Aborted(reason="superseded", message="a newer attempt runs"),
    ],
)
def test_events_tell_their_kind(event: wire.WorkerEvent) -> None:
    assert msgspec.json.decode(msgspec.json.encode(event), type=wire.WorkerEvent) == event


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a/b", "a" * 254, "ä", "a b"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"name": name}), type=public.SessionCreate)


def test_from_names_the_source_of_a_fork() -> None:
    body = msgspec.json.decode(b'{"from": {"session": "alice", "turn": 2}}', type=public.SessionCreate)
    assert body.from_ == public.ForkFrom("alice", 2)


def test_every_event_of_a_stream_has_a_name() -> None:
    assert set(public.EVENT_NAMES.values()) == {
        "turn.started",
        "token",
        "turn.moved",
        "turn.restarted",
        "turn.committed",
        "turn.aborted",
        "turn.unknown",
    }
