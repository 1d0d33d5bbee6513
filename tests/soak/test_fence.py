"""The negative control: without the fence a zombie's commit goes through, and the checker says so."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest
from checker import Attempt, Entry, History, check

from fleetkit.client import Client
from fleetkit.models import write_random_llama
from fleetkit.procs import until
from fleetkit.rig import Rig
from fleetkit.story import insist, turns

NO_FENCE = {"PYTHONPATH": str(Path(__file__).parent / "nofence")}


@pytest.mark.parametrize("env", [{}, NO_FENCE], ids=["whole", "cut"])
async def test_a_zombie_commit_is_found_where_the_fence_is_cut(tmp_path, env):
    model = write_random_llama(tmp_path / "model")
    rig = Rig(tmp_path / "rig", str(model), ["--dtype", "float32", "--threads", "1"], ["--lease-s", "1"], env)
    try:
        await rig.start(workers=1)
        async with aiohttp.ClientSession() as http:
            attempts, history = await zombie(rig, Client(http, rig.gateways[0].url))
    finally:
        await rig.close()
    found = {violation.rule for violation in check(attempts, [history])}
    assert bool(found) == bool(env), found


async def zombie(rig: Rig, client: Client) -> tuple[list[Attempt], History]:
    """A commit is held on the wire until its lease is over and another turn is committed, then let go."""
    other = client.at(rig.gateways[1].url)
    session = await client.open()
    name, plan, wire = session["name"], turns(1), rig.gateways[0].wire

    async def hold() -> bool:
        wire.up.hold()
        return True

    rig.workers[0].wire.down.on(b'"event":"finished"', hold)
    sent_at = time.monotonic()
    streaming = asyncio.create_task(client.turn(name, plan[0]))
    await until(lambda: not wire.up.gate.is_set(), "the finish to pass")
    winner = await insist(other, name, plan[1])
    assert winner.body["state"] == "committed"
    won_at = time.monotonic()
    wire.up.release()
    loser = await streaming
    view, listed = await other.session(name), await other.history(name)
    entries = [
        Entry(tuple(t["input_ids"]), tuple(t["output_ids"]), t["head"], t["turn"] or "") for t in listed["turns"]
    ]
    attempts = [
        Attempt(
            session["uid"],
            tuple(plan[1]["input_ids"]),
            "committed",
            tuple(winner.body["output_ids"]),
            head=winner.body["head"],
            position=winner.body["turn_index"],
            sent_at=sent_at,
            ended_at=won_at,
        ),
        Attempt(session["uid"], tuple(plan[0]["input_ids"]), "unknown", seen_ids=tuple(loser.ids), sent_at=sent_at),
    ]
    return attempts, History(session["uid"], view["head"], view["turns"], view["tokens"], tuple(entries))
