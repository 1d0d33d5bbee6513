"""What a thousand sessions cost the operator on a real API server with real gateways: to get Ready, to be there, to go.

python tests/bench/operator_costs.py                 about seven minutes, five of them idle
python tests/bench/operator_costs.py --write-docs    and its part of docs/benchmarks.md, from these numbers

All resources are created side by side, faster than `kubectl apply` would; the clock starts with the first. Requests are
counted by the API server (its audit log), processor time and memory by the kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet"), str(HERE.parent / "cluster")]

import aiohttp  # noqa: E402 - after what makes our own importable
import page  # noqa: E402

from clusterkit import cluster as clusters  # noqa: E402
from clusterkit import programs  # noqa: E402
from clusterkit.crowd import Crowd, by_the_operator, writes_a_session  # noqa: E402
from clusterkit.node.node import Node  # noqa: E402
from clusterkit.platform import WORKER_IMAGE, worker_image  # noqa: E402
from clusterkit.platform import platform as berth  # noqa: E402
from clusterkit.scene import Scene  # noqa: E402
from fleetkit.table import table  # noqa: E402

SLOTS = 64
LONGEST_S = 600.0
PRODUCT = ["--resync-s", "30", "--absent-s", "60", "--session-status-s", "10", "--unreachable-s", "60"]
"""The operator's own times, in place of the shorter ones of the tests."""
HEARTBEAT_S = 30.0


class Phases:
    """One after the other: how long each took, what the operator spent on it and asked for in it."""

    def __init__(self, scene: Scene) -> None:
        assert scene.platform.cluster.audit is not None
        self.found: dict[str, dict[str, Any]] = {}
        self.audit = scene.platform.cluster.audit
        self._api = scene.api
        self._pid = scene.platform.operator.process.pid

    @asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Measure what is done within; what is put into the given dictionary is kept with it."""
        print(f"{name} ...", flush=True)
        found = self.found[name] = {}
        mark, began, spent = await self.audit.caught_up(self._api), time.monotonic(), cpu_s(self._pid)
        yield found
        seconds, cpu = time.monotonic() - began, cpu_s(self._pid) - spent
        await self.audit.caught_up(self._api)
        asked = by_the_operator(self.audit, mark)
        found["seconds"], found["cpu_s"] = seconds, cpu
        found["requests"] = dict(Counter(f"{one.verb} {one.resource}" for one in asked))
        found["writes"] = sum(one.is_write for one in asked)
        found["writes_a_session"] = sorted(Counter(writes_a_session(self.audit, mark).values()).items())
        found["memory_mb"], found["memory_most_mb"] = memory_mb(self._pid)
        print(f"  {seconds:.1f} s, CPU {cpu:.2f} s, {len(asked)} requests, {found['writes']} writes", flush=True)


def cpu_s(pid: int) -> float:
    """Return the processor time a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> tuple[float, float]:
    """Return a process's resident memory, and the most it ever was."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Scene]:
    """A control plane of our own, a node with one Ready worker, two gateways, Redis and the operator."""
    with clusters.own(folder / "cluster", programs.ensure(lambda line: print(line, flush=True))) as cluster:
        await cluster.kubectl.raw("apply", "--server-side", "-f", str(ROOT / "crds"))
        await cluster.kubectl.raw("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
        async with cluster.api() as api, aiohttp.ClientSession() as http:
            namespace = await clusters.make_namespace(api)
            async with (
                Node(cluster, folder, {WORKER_IMAGE: worker_image()}) as node,
                berth(cluster, folder / "berth", [namespace], operator_args=PRODUCT, direct=True) as parts,
            ):
                scene = Scene(parts, namespace, api, cluster.kubectl.within(namespace), node, http)
                await scene.fleet(slots=SLOTS)
                await scene.ready("ifl/tiny")
                yield scene


async def measure(sessions: int, idle_s: float) -> dict[str, Any]:
    load = os.getloadavg()[0]
    print("starting a control plane, gateways, the operator and a worker ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="berth-operator-") as folder:
        async with stage(Path(folder)) as scene:
            crowd, phases = Crowd(scene, sessions), Phases(scene)
            async with phases.phase("all Ready") as found:
                began = time.monotonic()
                await crowd.make()
                found["made_s"] = time.monotonic() - began
                await crowd.all_ready(LONGEST_S)
            async with phases.phase("idle"):
                await rest(idle_s)
            async with phases.phase("all deleted"):
                await crowd.delete()
                await crowd.all_closed(LONGEST_S)
    return {"sessions": sessions, "load": load, "phases": phases.found, "wrong": wrong(sessions, phases.found)}


async def rest(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, HEARTBEAT_S))
        print(f"  {max(0.0, end - time.monotonic()):.0f} s left", flush=True)


def wrong(sessions: int, found: dict[str, dict[str, Any]]) -> list[str]:
    """Return what is promised whatever the machine does, and was not so."""
    written = found["all Ready"]["writes_a_session"]
    faults = []
    if sum(count for _, count in written) != sessions or max(writes for writes, _ in written) > 4:
        faults.append(f"status writes (times, sessions): {written}; 1 to 4 times each is promised")
    if found["idle"]["writes"]:
        faults.append(f"{found['idle']['writes']} writes while idle")
    return faults


def show(found: dict[str, Any]) -> str:
    rows = [
        (
            name,
            phase["seconds"],
            phase["cpu_s"],
            f"{phase['cpu_s'] / phase['seconds']:.1%}",
            sum(phase["requests"].values()),
            phase["writes"],
            round(phase["memory_mb"]),
        )
        for name, phase in found["phases"].items()
    ]
    header = ("", "s", "operator's CPU s", "of a core", "its requests", "of them writes", "its memory MB")
    title = (
        f"{found['sessions']} sessions made at once for a worker of {SLOTS} slots (load average {found['load']:.1f})"
    )
    asked = [(name, *row) for name, row in requests(found["phases"]).items()]
    ready = found["phases"]["all Ready"]
    times = ", ".join(f"{writes} ({count} sessions)" for writes, count in ready["writes_a_session"])
    return "\n".join(
        [
            table(title, header, rows),
            f"\nMade by their user within {ready['made_s']:.1f} s.",
            f"Status writes a session until all were Ready: {times}.",
            table("What the operator asked of the API server", ("", *found["phases"]), asked),
        ]
    )


def requests(phases: dict[str, dict[str, Any]]) -> dict[str, list[int]]:
    """Return a row for each verb and resource, a column for each phase."""
    names = sorted({name for phase in phases.values() for name in phase["requests"]})
    return {name: [phase["requests"].get(name, 0) for phase in phases.values()] for name in names}


def write_docs(load: float, text: str) -> None:
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    cores = os.cpu_count() or 1
    busy = "\nThe machine was busy with other work: these times are to be taken again on a quiet one."
    said = [
        f"\nMeasured by `make bench-operator` on {cpu.partition(': ')[2]} ({cores} cores),",
        f"{time.strftime('%Y-%m-%d')}. A real API server with etcd, Redis, two gateways, a worker and the operator",
        "share the cores, and with them whatever else the load average counts. The aims: all Ready within 60 s, at",
        "most 4 writes a session, none while idle, and less than 2 % of a core then.",
        *([busy] if load > cores else []),
        text,
    ]
    page.write(operator="\n".join(said) + "\n")


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--sessions", type=int, default=1000)
    flags.add_argument("--idle-s", type=float, default=300.0)
    flags.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder of operator.json")
    flags.add_argument("--write-docs", action="store_true", help="write the operator's part of docs/benchmarks.md")
    options = flags.parse_args()
    found = asyncio.run(measure(options.sessions, options.idle_s))
    text = show(found)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "operator.json").write_text(json.dumps(found, indent=1))
    print(f"\nwrote {options.out / 'operator.json'}")
    if options.write_docs:
        write_docs(found["load"], text)
    for fault in found["wrong"]:
        print(f"WRONG {fault}")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
