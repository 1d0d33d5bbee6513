"""Minutes of mixed traffic under kills, freezes, cuts and restarts; then every promise is checked by the histories.

    python tests/soak/soak.py --minutes 10 --seed 1
    python tests/soak/soak.py --minutes 2 --break-fence      the negative control: must find violations

Exit 0: no violation (with --break-fence: at least one); 1 otherwise. The report is a JSON file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet")]

from audit import Audit  # noqa: E402 - importable only from here on
from chaos import Chaos  # noqa: E402
from traffic import Traffic  # noqa: E402

from fleetkit.client import Client  # noqa: E402
from fleetkit.models import write_random_llama  # noqa: E402
from fleetkit.rig import Rig  # noqa: E402

WORKER_ARGS = ["--dtype", "float32", "--threads", "1", "--page-size", "8", "--chunked-prefill-size", "64"]
WORKER_ARGS += ["--slots", "12", "--max-total-tokens", "16384", "--check-memory", "busy"]
"""Fewer slots than sessions, so that hibernation is part of the traffic; every step checks its accounting."""
GATEWAY_ARGS = ["--lease-s", "1.5", "--stall-s", "2", "--suspect-s", "3", "--capacity-wait-s", "10"]
PROGRESS_S = 10.0


def arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--minutes", type=float, default=10.0)
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--clients", type=int, default=8)
    flags.add_argument("--workers", type=int, default=2)
    flags.add_argument("--gateways", type=int, default=2)
    flags.add_argument("--break-fence", action="store_true", help="negative control: commits do not compare fences")
    flags.add_argument("--report", type=Path, default=Path("build/soak/report.json"))
    flags.add_argument("--keep", type=Path, help="keep logs and Redis data in this folder")
    return flags.parse_args()


async def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run it all and return the report."""
    model = write_random_llama(folder / "model")
    env = {"PYTHONPATH": str(HERE / "nofence")} if options.break_fence else {}
    rig = Rig(folder / "rig", str(model), WORKER_ARGS, GATEWAY_ARGS, gateway_env=env)
    say(f"starting {options.workers} workers and {options.gateways} gateways in {folder}")
    began = time.monotonic()
    try:
        await rig.start(workers=options.workers, gateways=options.gateways)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            client = Client(http, rig.gateways[0].url)
            traffic = Traffic(rig, client, options.seed)
            chaos = Chaos(rig, options.seed, workers=options.workers, gateways=options.gateways)
            await under_fire(traffic, chaos, options.clients, options.minutes * 60)
            say("calm again; reading every history")
            audit = Audit(rig, client.at(rig.gateways[0].url), traffic)
            found = await audit.run()
    finally:
        await rig.close()
    return {
        "seed": options.seed,
        "minutes": options.minutes,
        "seconds": round(time.monotonic() - began, 1),
        "fence": "cut" if options.break_fence else "whole",
        "turns": dict(traffic.outcomes),
        "refusals": dict(traffic.refusals),
        "faults": dict(chaos.struck),
        "sessions": len(audit.histories),
        "history_turns": sum(len(history.entries) for history in audit.histories),
        "replayed_turns": audit.replayed,
        "odd": traffic.odd,
        "violations": [asdict(violation) for violation in found],
    }


async def under_fire(traffic: Traffic, chaos: Chaos, clients: int, seconds: float) -> None:
    """Traffic and faults together, then traffic alone for a moment, then neither."""
    running = asyncio.create_task(traffic.run(clients))
    striking = asyncio.create_task(chaos.run())
    telling = asyncio.create_task(progress(traffic, chaos, time.monotonic(), seconds))
    await asyncio.wait([running, striking, telling], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    await end(striking)
    await end(telling)
    await chaos.calm()
    await asyncio.wait([running], timeout=3.0)
    traffic.ending.set()
    await asyncio.wait_for(running, 120.0)


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task; its own failure is ours."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def progress(traffic: Traffic, chaos: Chaos, began: float, seconds: float) -> None:
    """One line every ten seconds."""
    while True:
        await asyncio.sleep(PROGRESS_S)
        turns = "  ".join(f"{name} {count}" for name, count in sorted(traffic.outcomes.items()))
        faults = f"{sum(chaos.struck.values())} faults"
        say(f"{time.monotonic() - began:5.0f} of {seconds:.0f} s  {turns}  {faults}  odd {len(traffic.odd)}")


def say(text: str) -> None:
    print(text, flush=True)


def tell(report: dict[str, Any]) -> None:
    """The report for people."""
    for name in ("turns", "refusals", "faults"):
        say(f"{name}: " + ", ".join(f"{key} {count}" for key, count in sorted(report[name].items())))
    say(
        f"{report['sessions']} sessions with {report['history_turns']} turns; {report['replayed_turns']} turns replayed"
    )
    for text in report["odd"][:20]:
        say(f"odd: {text}")
    for violation in report["violations"][:40]:
        say(f"VIOLATION {violation['rule']}: session {violation['session']}: {violation['detail']}")
    say(f"{len(report['violations'])} violations, {len(report['odd'])} oddities")


def main() -> int:
    options = arguments()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="berth-soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(soak(options, folder))
    tell(report)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(report, indent=1))
    caught = bool(report["violations"])
    if options.break_fence:
        say("the checker caught the missing fence" if caught else "THE CHECKER DID NOT CATCH THE MISSING FENCE")
        return 0 if caught else 1
    return 1 if caught or report["odd"] else 0


if __name__ == "__main__":
    sys.exit(main())
