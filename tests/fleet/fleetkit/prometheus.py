"""A real Prometheus on a free port: give it targets, wait for what it should see, ask what a dashboard would ask.

Targets may change while it runs (`watch`): a worker that is killed stays a target that is down, its successor is new.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from fleetkit.procs import Process
from fleetkit.story import eventually

READY_S = 60.0
SCRAPE_S = 0.25
"""Often enough that a rate over seconds has its samples."""


class NoPrometheus(RuntimeError):
    """This machine has none."""


class BadQuery(RuntimeError):
    """It did not take a query."""


@dataclass(frozen=True)
class Target:
    """Where to scrape; `labels` go on everything that is found there."""

    url: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_config(self) -> dict[str, Any]:
        return {"targets": [self.url.rstrip("/").removeprefix("http://")], "labels": dict(self.labels)}


@dataclass(frozen=True)
class Sample:
    labels: Mapping[str, str]
    value: float


@dataclass
class Job:
    """Targets that are scraped alike, with the bearer token of a file. `honor_labels`: the target's own labels win."""

    name: str
    targets: Sequence[Target]
    token_file: Path | None = None
    honor_labels: bool = False


class Prometheus:
    """One server with its data below `folder`. Use `start` and `stop`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: Process | None = None
        self._http: aiohttp.ClientSession | None = None
        self.url = ""

    async def start(self, *jobs: Job) -> Prometheus:
        """Write the configuration, start, and return once it answers. Raises NoPrometheus."""
        binary = shutil.which("prometheus")
        if binary is None:
            raise NoPrometheus("no prometheus on PATH: install it (Debian, Ubuntu: apt-get install prometheus)")
        self._folder.mkdir(parents=True, exist_ok=True)
        self.watch(*jobs)
        scrape = {"scrape_interval": f"{round(1000 * SCRAPE_S)}ms", "scrape_timeout": f"{round(1000 * SCRAPE_S)}ms"}
        config = {"global": scrape, "scrape_configs": [self._config(job) for job in jobs]}
        self._path("prometheus.yaml").write_text(json.dumps(config))
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [binary, f"--config.file={self._path('prometheus.yaml')}", f"--web.listen-address=127.0.0.1:{port}"]
        command += [f"--storage.tsdb.path={self._path('data')}", "--log.level=warn"]
        self._process = await Process.start("prometheus", command, self._path("prometheus.log"))
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        await eventually(self._ready, "an answer of Prometheus", READY_S)
        return self

    def watch(self, *jobs: Job) -> None:
        """Change the targets of jobs; it notices by itself."""
        for job in jobs:
            draft = self._path(f"{job.name}.draft")
            draft.write_text(json.dumps([target.as_config() for target in job.targets]))
            draft.replace(self._path(f"{job.name}.json"))

    def _config(self, job: Job) -> dict[str, Any]:
        config: dict[str, Any] = {"job_name": job.name, "honor_labels": job.honor_labels}
        config["file_sd_configs"] = [{"files": [str(self._path(f"{job.name}.json"))], "refresh_interval": "1s"}]
        if job.token_file is not None:
            config["authorization"] = {"credentials_file": str(job.token_file)}
        return config

    def _path(self, name: str) -> Path:
        return self._folder / name

    async def query(self, expr: str) -> list[Sample]:
        """Return what the expression is now. Raises BadQuery."""
        assert self._http is not None
        async with self._http.get(f"{self.url}/api/v1/query", params={"query": expr}) as answer:
            body = await answer.json()
        if body["status"] != "success":
            raise BadQuery(f"{expr}: {body['error']}")
        return [Sample(found["metric"], float(found["value"][1])) for found in body["data"]["result"]]

    async def number(self, expr: str) -> float:
        """Return an expression of one value; 0 where it has none yet."""
        return sum(sample.value for sample in await self.query(expr))

    async def until(self, expr: str, met: Callable[[float], bool], what: str, timeout_s: float = 30.0) -> float:
        """Ask until the one value is as it should be, and return it; TimeoutError names `what` otherwise."""
        seen: list[float] = []

        async def look() -> bool:
            seen[:] = [await self.number(expr)]
            return met(seen[0])

        try:
            await eventually(look, what, timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {expr} is {seen}") from None
        return seen[0]

    async def _ready(self) -> bool:
        assert self._http is not None
        assert self._process is not None
        if self._process.returncode is not None:
            raise RuntimeError(f"prometheus ended with {self._process.returncode}:\n{self._process.tail()}")
        try:
            async with self._http.get(f"{self.url}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def stop(self) -> None:
        """End it; its data stays in the folder."""
        if self._http is not None:
            await self._http.close()
        if self._process is not None:
            await self._process.stop()


async def faults(exposition: bytes) -> str:
    """Return what Prometheus' own linter has to say of an answer of /metrics. Raises NoPrometheus."""
    linter = shutil.which("promtool")
    if linter is None:
        raise NoPrometheus("no promtool on PATH: install Prometheus (Debian, Ubuntu: apt-get install prometheus)")
    process = await asyncio.create_subprocess_exec(
        *(linter, "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return (await process.communicate(exposition))[0].decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
