"""Who may call: a token on all but /health, compared whole."""

from __future__ import annotations

import pytest

from berth_worker.server.app import loopback
from berth_worker.settings import ServerSettings

PATHS = ["/get_server_info", "/metrics", "/berth/model", "/nope"]


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(token="s3cret")


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer s3cre", "Bearer s3crets", "s3cret", "Bearer s3cr\u00e9t"])
@pytest.mark.parametrize("path", PATHS)
async def test_without_the_token_nothing_is_told(worker, path, header):
    headers = {} if header is None else {"Authorization": header}
    async with worker.http.get(worker.url + path, headers=headers) as response:
        assert response.status == 401
        assert (await response.json())["error"]["type"] == "unauthorized"


async def test_with_the_token_everything_works(worker):
    headers = {"Authorization": "Bearer s3cret"}
    assert (await worker.get("/get_server_info", headers=headers))[0] == 200
    assert (await worker.post("/generate", {"input_ids": [3]}, headers=headers))[0] == 200
    assert (await worker.post("/generate", {"input_ids": [3]}))[0] == 401


async def test_health_wants_none(worker):
    assert (await worker.get("/health"))[0] == 200


async def test_health_of_another_worker_is_not_ours(worker):
    assert (await worker.get("/health", headers={"X-Berth-Worker": "another.boot"}))[0] == 421


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_loopback(host, expected):
    assert loopback(host) is expected
