"""`berth up` from outside: it says where everything is, replaces what dies, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from safetensors.numpy import load_file, save_file

from fleetkit.client import Client
from fleetkit.procs import Process, alive, kill, until
from fleetkit.story import at_token, same, tell, turn, turns
from fleetkit.up import BERTH, LocalFleet

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_killed_worker_is_replaced_and_announced(fleet: LocalFleet, up_client: Client):
    plan = turns(81, new=80)
    expected = await tell(up_client, plan)
    before = set(fleet.workers)
    name = (await up_client.open())["name"]
    told = [await up_client.turn(name, plan[0])]
    home = (await up_client.session(name))["worker"]
    told.append(await turn(up_client, name, plan[1], at_token(10, lambda: kill(fleet.worker_pid(home)))))
    told.append(await up_client.turn(name, plan[2]))
    same(told, expected)
    await fleet.whole(2)
    (new,) = set(fleet.workers) - before
    assert alive(fleet.worker_pid(new))


async def refusal(tmp_path, *args: str) -> str:
    """Start `berth up` with bad arguments and return what it says; it must end by itself, soon."""
    command = [str(BERTH), "up", "--json", "--state-dir", str(tmp_path / "state"), *args]
    process = await Process.start("berth up", command, tmp_path / "log")
    await until(lambda: process.returncode is not None, "berth up to give up", 120)
    assert await process.stop() != 0
    said = process.tail()
    assert "Traceback" not in said, said
    return said


async def test_an_unknown_model_is_named(tmp_path):
    assert "no-such-model" in await refusal(tmp_path, "--model", "no-such-model")


async def test_a_missing_tensor_is_named(random_llama, tmp_path):
    broken = tmp_path / "broken"
    await asyncio.to_thread(shutil.copytree, random_llama, broken)
    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in await refusal(tmp_path, "--model", str(broken))
