"""Sessions over HTTP: made, looked at, read back, forked, closed; and a name that is made again."""

from __future__ import annotations

import asyncio
import uuid


async def test_a_session_without_a_name_gets_one(fleet):
    status, view, headers = await fleet.client.call("POST", "/v1/sessions", {})
    assert status == 201
    uuid.UUID(view["uid"])
    assert (view["namespace"], view["fleet"], view["origin"]) == ("default", "default", "http")
    assert (view["head"], view["turns"], view["tokens"], view["state"]) == ("", 0, 0, "hibernated")
    assert (headers["Location"], headers["ETag"]) == (view["endpoint"], '""')
    assert (await fleet.client.call("GET", view["endpoint"]))[1] == view


async def test_a_name_that_is_taken(fleet):
    await fleet.client.open("a")
    status, problem, _ = await fleet.client.call("POST", "/v1/sessions", {"name": "a"})
    assert (status, problem["type"]) == (409, "session_exists")


async def test_etag_and_if_none_match(fleet, ask):
    await fleet.client.open()
    head = (await fleet.client.turn(**ask())).last.data["head"]
    status, _, headers = await fleet.client.call("GET", "/v1/sessions/default/a", If_None_Match=f'"{head}"')
    assert (status, headers["ETag"]) == (304, f'"{head}"')


async def test_history_as_text_and_ids(fleet, ask):
    await fleet.client.open()
    told = [await fleet.client.turn(**ask(text)) for text in ("one", "two")]
    status, history, headers = await fleet.client.call("GET", "/v1/sessions/default/a/history")
    assert (status, headers["ETag"]) == (200, f'"{told[1].last.data["head"]}"')
    assert [turn["head"] for turn in history["turns"]] == [one.last.data["head"] for one in told]
    assert [turn["output_ids"] for turn in history["turns"]] == [one.ids for one in told]
    assert [turn["text"] for turn in history["turns"]] == [one.text for one in told]
    assert [turn["input_text"] for turn in history["turns"]] == ["one", "two"]
    assert [turn["input_ids"] for turn in history["turns"]] == [[256, *b"one"], [*b"two"]]
    assert [turn["turn"] for turn in history["turns"]] == [one.last.data["turn"] for one in told]


async def test_a_fork_goes_its_own_way(fleet, ask):
    await fleet.client.open()
    told = [await fleet.client.turn(**ask(text)) for text in ("one", "two")]
    fork = await fleet.client.open("b", **{"from": {"session": "a", "turn": 1}})
    assert (fork["head"], fork["turns"]) == (told[0].last.data["head"], 1)
    aside = await fleet.client.turn("b", **ask("two", seed=fleet.first.seen[1].seed))
    assert aside.ids == told[1].ids
    assert aside.last.data["head"] == told[1].last.data["head"]
    assert (await fleet.client.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 2
    status, problem, _ = await fleet.client.call("POST", "/v1/sessions", {"from": {"session": "a", "turn": 9}})
    assert (status, problem["field"]) == (400, "from.turn")


async def test_a_name_deleted_and_made_again_is_another_session(fleet, ask, eventually):
    old = await fleet.client.open()
    await fleet.client.turn(**ask("one"), headers={"Idempotency-Key": "k"})
    assert (await fleet.client.call("DELETE", "/v1/sessions/default/a"))[0] == 204
    await eventually(lambda: [order.uid for order in fleet.first.released] == [old["uid"]], "the release")
    new = await fleet.client.open()
    assert new["uid"] != old["uid"]
    told = await fleet.client.turn(**ask("two"), headers={"Idempotency-Key": "k"})
    assert told.last.data["turn_index"] == 0
    assert fleet.first.seen[-1].uid == new["uid"]
    assert fleet.first.seen[-1].history == []


async def test_another_gateway_has_no_stale_memory_of_it(fleet, start_gateway, ask):
    other = await start_gateway()
    await fleet.client.open()
    await fleet.client.turn(**ask("one"))
    await other.turn(**ask("two"))
    await fleet.client.call("DELETE", "/v1/sessions/default/a")
    await fleet.client.open()
    told = await other.turn(**ask("three"))  # it remembers the older uid and head
    assert told.last.data["turn_index"] == 0
    assert fleet.first.seen[-1].input_ids[:4] == (256).to_bytes(4, "little")  # BOS: a first turn


async def test_bos_is_sent_once_a_session(fleet):
    await fleet.client.open()
    await fleet.client.turn(input_ids=[256, 97], sampling={"max_new_tokens": 1})
    await fleet.client.turn(input_ids=[256, 98], sampling={"max_new_tokens": 1})
    first, second = fleet.first.seen
    assert first.input_ids == b"".join(n.to_bytes(4, "little") for n in (256, 97))
    assert second.input_ids == (98).to_bytes(4, "little")
    only = await fleet.client.turn(input_ids=[256])
    assert (only.status, only.problem["field"]) == (400, "input_ids")


async def test_idle_sessions_are_closed_by_the_reaper(fleet, eventually):
    await fleet.client.open(idle_timeout_s=0.1)

    async def gone():
        return (await fleet.client.call("GET", "/v1/sessions/default/a"))[0] == 404

    await eventually(gone, "the reaper")


async def test_an_idle_session_hibernates_and_remembers(fleet, ask, eventually):
    await fleet.client.open(hibernate_after_s=0.1)
    await fleet.client.turn(**ask("one"))

    async def hibernated():
        return (await fleet.client.call("GET", "/v1/sessions/default/a"))[1]["state"] == "hibernated"

    await eventually(hibernated, "the reaper")
    told = await fleet.client.turn(**ask("two"))
    assert told.last.data["turn_index"] == 1
    assert len(fleet.first.seen[-1].history) == 1


async def test_turns_on_a_name_made_again_are_all_of_the_new_session(fleet, ask):
    """The gateway remembers the old session; each turn that finds it gone looks again, however many do at once."""
    for _ in range(2):
        await fleet.client.open()
        bodies = [ask("hi", 2) for _ in range(4)]
        calls = [fleet.client.call("POST", "/v1/sessions/default/a/turns", body) for body in bodies]
        answers = [(status, body.get("type")) for status, body, _ in await asyncio.gather(*calls)]
        assert (200, None) in answers
        assert set(answers) <= {(200, None), (409, "turn_in_flight")}
        assert (await fleet.client.call("DELETE", "/v1/sessions/default/a"))[0] == 204
