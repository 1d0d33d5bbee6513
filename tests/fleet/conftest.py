"""Fleets of real processes for the tests in this folder, and the kit (`fleetkit`) that drives them.

Two kinds: `fleet` is `berth up`, whole and self-healing; `rig` is wired by hand with a proxy on every wire, for faults
at exact moments. Both are started once and mended before each test; tests make sessions of their own.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from berth_kernels.build import library
from berth_kernels.interface import KernelError

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from fleetkit.client import Client  # noqa: E402 - importable only from here on
from fleetkit.models import write_random_llama  # noqa: E402
from fleetkit.rig import Rig  # noqa: E402
from fleetkit.up import LocalFleet  # noqa: E402

WORKER_ARGS = ["--dtype", "float32", "--threads", "1", "--page-size", "8", "--chunked-prefill-size", "64"]
GATEWAY_ARGS = ["--lease-s", "1.5", "--stall-s", "2", "--suspect-s", "3", "--capacity-wait-s", "50"]
"""A tenth of the product's times: a test waits for a lease or a stall more often than a user does. Capacity is waited
for longer: a worker's start takes what the machine has left for it."""


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    """Build the native kernels where they are missing: the first worker would take its time for it."""
    with suppress(KernelError):
        library()


@pytest.fixture(scope="session")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which every word depends on the whole history."""
    return write_random_llama(tmp_path_factory.mktemp("model") / "llama")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _rig(tmp_path_factory: pytest.TempPathFactory, random_llama: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("rig"), str(random_llama), WORKER_ARGS, GATEWAY_ARGS)
    try:
        await made.start()
        yield made
    finally:
        await made.close()


@pytest_asyncio.fixture(loop_scope="session")
async def rig(_rig: Rig) -> Rig:
    """Two workers and two gateways, all alive, all wires calm."""
    await _rig.mend()
    _rig.keep_spare()
    return _rig


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _fleet(tmp_path_factory: pytest.TempPathFactory, random_llama: Path) -> AsyncIterator[LocalFleet]:
    made = await LocalFleet.start(
        tmp_path_factory.mktemp("up"),
        model=str(random_llama),
        workers=2,
        gateways=2,
        args=[*WORKER_ARGS, *GATEWAY_ARGS],
    )
    try:
        yield made
    finally:
        assert await made.close() < 10, "SIGINT ends all children within 10 s"


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(_fleet: LocalFleet) -> LocalFleet:
    """`berth up` with two workers and two gateways, whole."""
    await _fleet.whole(2)
    return _fleet


@pytest_asyncio.fixture(loop_scope="session")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
def client(rig: Rig, http: aiohttp.ClientSession) -> Client:
    """A client of the rig's first gateway."""
    return Client(http, rig.gateways[0].url)


@pytest.fixture
def up_client(fleet: LocalFleet, http: aiohttp.ClientSession) -> Client:
    """A client of the local fleet's first gateway."""
    return Client(http, fleet.gateway)
