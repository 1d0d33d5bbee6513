"""`berth up --json` as a black box: what it says on its lines is all that is known of it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleetkit.procs import Process, alive, children, kill, listener, port_of, until

BERTH = Path(sys.executable).with_name("berth")


class LocalFleet:
    """A running local fleet. `workers` follows the JSON lines: id -> {"url", "pid"}."""

    def __init__(self, process: Process, ready: dict[str, Any]) -> None:
        self.process = process
        self.gateways: list[str] = ready["gateways"]
        self.gateway: str = ready["gateway"]
        self.admin: str = ready["admin"]
        self.redis: str = ready["redis"]
        self._ready = ready

    @classmethod
    async def start(
        cls,
        folder: Path,
        *,
        model: str = "berth-tiny",
        workers: int = 2,
        gateways: int = 1,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
    ) -> LocalFleet:
        """Start a fleet with its state below `folder` and wait until it says that it is ready."""
        folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs yet
        command = [str(BERTH), "up", "--json", "--workers", str(workers), "--gateways", str(gateways)]
        command += ["--model", model, "--gateway-port", "0", "--state-dir", str(folder / "state"), *args]
        process = await Process.start("berth up", command, folder / "up.log", env=env)
        try:
            return cls(process, await process.ready(timeout_s))
        except BaseException:
            await process.stop(signal.SIGINT)
            raise

    @property
    def workers(self) -> dict[str, dict[str, Any]]:
        """Every worker that was ever announced, oldest first."""
        known = {worker["id"]: worker for worker in self._ready["workers"]}
        for line in self.process.lines:
            if line.get("event") == "worker" and "pid" in line:
                known[line["id"]] = line
        return known

    @property
    def living(self) -> dict[str, dict[str, Any]]:
        """Workers whose process lives."""
        return {name: worker for name, worker in self.workers.items() if alive(worker["pid"])}

    def worker_pid(self, worker: str) -> int:
        pid: int = self.workers[worker]["pid"]
        return pid

    def gateway_pid(self, number: int = 0) -> int:
        return listener(port_of(self.gateways[number]))

    def redis_pid(self) -> int:
        return listener(port_of(self.redis))

    async def whole(self, workers: int, timeout_s: float = 60.0) -> None:
        """Wait until that many workers live and every gateway and Redis listen."""

        def complete() -> bool:
            if len(self.living) < workers:
                return False
            try:
                for number in range(len(self.gateways)):
                    self.gateway_pid(number)
                self.redis_pid()
            except LookupError:
                return False
            return True

        await until(complete, f"{workers} workers, {len(self.gateways)} gateways and Redis", timeout_s, every_s=0.1)

    async def close(self) -> float:
        """SIGINT; returns the seconds it took until no child was left. Raises when one outlives 10 s."""
        below = children(self.process.pid)
        began = time.monotonic()
        await self.process.stop(signal.SIGINT, timeout_s=12.0)
        try:
            await until(lambda: not any(alive(pid) for pid in below), "all children gone", 1.0)
        except TimeoutError:
            left = [pid for pid in below if alive(pid)]
            for pid in left:
                kill(pid)
            raise RuntimeError(f"berth up left {len(left)} children behind:\n{self.process.tail()}") from None
        return time.monotonic() - began
