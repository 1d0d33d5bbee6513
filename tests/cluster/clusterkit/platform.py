"""All of Berth beside a cluster: real Redis, gateways and the operator as processes of this machine.

Workers are pods: they run on stand-in nodes, whose addresses the gateways can reach. Those of an existing cluster they
cannot reach: there the chart is what runs the gateways.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from redis import asyncio as aioredis

from berth_kernels.build import library
from berth_kernels.interface import KernelError
from clusterkit.accounts import service_account
from clusterkit.api import Object
from clusterkit.cluster import Cluster
from clusterkit.node.settings import Image, python
from fleetkit.procs import Process, kill
from fleetkit.rig import Gateway, Rig

WORKER_IMAGE = "berth/worker:test"
TOKEN_SECRET = "berth-worker-token"
ACCOUNT = "berth-operator"
RIGHTS = Path(__file__).parents[3] / "charts/berth/operator-role.yaml"
READY_S = 60.0

OPERATOR_ARGS = ["--resync-s", "3", "--absent-s", "6", "--session-status-s", "1", "--unreachable-s", "3"]
"""A tenth of the product's times, as the rig's gateways have: a test waits for them more often than a user does."""
GATEWAY_ARGS = ["--lease-s", "1.5", "--stall-s", "2", "--suspect-s", "3", "--capacity-wait-s", "50"]


def worker_image() -> Image:
    """Return what runs for a worker's image: the worker of this checkout, or of whatever is installed."""
    # An image has its kernels built in. A container's home is its own: each would build them anew.
    with suppress(KernelError):
        library()
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    env = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": cache}
    if places := os.environ.get("PYTHONPATH"):
        # Containers have a folder of their own: what is relative to ours must not be.
        env["PYTHONPATH"] = os.pathsep.join(str(Path(place).absolute()) for place in places.split(os.pathsep))
    return python("-m", "berth_worker", env=env)


class Operator:
    """The operator's process, as a service account with the chart's rights. It may be killed and started again."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.url = ""
        """Of /healthz, /readyz and /metrics; another one after each start."""
        self._command = command
        self._log = log
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def twin(self, api_port: int) -> Operator:
        """Another process of the same operator, not yet started, which finds the API server at another port."""
        own = Path(self._command[self._command.index("--kubeconfig") + 1])
        config = json.loads(own.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{api_port}"
        other = own.with_name("twin.kubeconfig")
        other.write_text(json.dumps(config))
        return Operator([*self._command, "--kubeconfig", str(other)], self._log.with_name("operator-twin.log"))

    async def launch(self) -> None:
        """Start it, and do not wait for anything."""
        self._process = await Process.start("operator", self._command, self._log)

    async def start(self) -> None:
        """Start it and wait until it has seen everything."""
        await self.launch()
        ready = await self.process.ready(READY_S)
        self.url = ready["url"].rstrip("/")

    async def kill(self) -> None:
        """SIGKILL."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM."""
        await self._end(signal.SIGTERM)

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    def pause(self) -> None:
        kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        kill(self.process.pid, signal.SIGCONT)

    async def _end(self, number: int) -> None:
        if self._process is not None:
            await self._process.stop(number)


@dataclass(frozen=True)
class Redis:
    """The ledger's Redis."""

    rig: Rig

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.rig.redis_port}/0"

    async def flush(self) -> None:
        """Lose everything, as an emptyDir does with its pod."""
        async with aioredis.from_url(self.url) as client:
            await client.flushall()

    async def kill(self) -> None:
        await self.rig.stop_redis()

    async def start(self) -> None:
        """Start it again on what it had written."""
        await self.rig.start_redis()


@dataclass(frozen=True)
class Platform:
    """What runs. `rig` starts more gateways, kills them, and holds the wires between them and Redis."""

    cluster: Cluster
    rig: Rig
    operator: Operator
    redis: Redis

    @property
    def gateways(self) -> list[Gateway]:
        return self.rig.gateways

    @property
    def url(self) -> str:
        """The first gateway's."""
        return self.gateways[0].url

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        """Call the admin API of the first living gateway. RuntimeError on a refusal."""
        return await self.rig.admin(method, path, body)

    def last_words(self) -> str:
        parts = [self.operator.process, *(gateway.process for gateway in self.gateways)]
        return "\n".join(f"--- {part.name}\n{part.tail()}" for part in parts)


@asynccontextmanager
async def platform(
    cluster: Cluster,
    folder: Path,
    namespaces: Sequence[str],
    *,
    gateways: int = 2,
    gateway_args: Sequence[str] = (),
    operator_args: Sequence[str] = (),
    everywhere: bool = False,
    direct: bool = False,
) -> AsyncIterator[Platform]:
    """Run Berth for `namespaces`, with its state below `folder`. The custom resources must be there.

    The operator's account is in the first of them. `everywhere`: it is not told of namespaces, and works in all.
    `direct`: there are no proxies between gateways and Redis. Later flags win: `gateway_args` and `operator_args` come
    after ours.
    """
    rig = Rig(folder, "", gateway_args=[*GATEWAY_ARGS, *gateway_args], direct=direct)
    operator: Operator | None = None
    try:
        await rig.start(workers=0, gateways=gateways)
        for namespace in namespaces:
            await _give_token(cluster, namespace, (folder / "worker.token").read_text())
        config = await service_account(
            cluster, ACCOUNT, folder / "operator.kubeconfig", rules=_rights(), namespace=namespaces[0]
        )
        command = [sys.executable, "-m", "berth_operator", "--kubeconfig", str(config)]
        served = () if everywhere else namespaces
        command += [part for namespace in served for part in ("--namespace", namespace)]
        command += [part for gateway in rig.gateways for part in ("--gateway-admin", gateway.admin)]
        command += ["--admin-token-file", str(folder / "admin.token"), "--worker-image", WORKER_IMAGE]
        command += ["--worker-token-secret", TOKEN_SECRET, "--port", "0", *OPERATOR_ARGS, *operator_args]
        operator = Operator(command, folder / "operator.log")
        await operator.start()
        yield Platform(cluster, rig, operator, Redis(rig))
    finally:
        if operator is not None:
            await operator.kill()
        await rig.close()


async def _give_token(cluster: Cluster, namespace: str, token: str) -> None:
    data = {"token": base64.b64encode(token.encode()).decode()}
    async with cluster.api() as api:
        await api.create(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": TOKEN_SECRET}, "data": data})


def _rights() -> list[Object]:
    """What the chart gives the operator, so that a right it lacks shows here and not in a cluster."""
    rules: list[Object] = yaml.safe_load(RIGHTS.read_text())["rules"]
    return rules
