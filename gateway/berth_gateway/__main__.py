"""`python -m berth_gateway`: flags to settings, one event loop, one ready line."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import uvloop

from berth_gateway.app import serve
from berth_gateway.ledger.settings import LedgerSettings
from berth_gateway.logs import configure
from berth_gateway.settings import (
    RATES,
    AuthSettings,
    HttpSettings,
    RateSettings,
    Settings,
    TurnSettings,
    WorkerSettings,
)


def parser() -> argparse.ArgumentParser:
    http, turn, worker, ledger = HttpSettings(), TurnSettings(), WorkerSettings(), LedgerSettings()
    flags = argparse.ArgumentParser(prog="python -m berth_gateway", description="HTTP in, workers out.")
    flags.add_argument("--redis", required=True, metavar="URL", help="the ledger: redis://, rediss:// or unix://")
    flags.add_argument("--host", default=http.host)
    flags.add_argument("--port", type=int, default=http.port, help="0 picks a free one")
    flags.add_argument("--admin-host", default=http.admin_host)
    flags.add_argument("--admin-port", type=int, default=http.admin_port)
    flags.add_argument("--admin-token-file", type=Path, help="the admin port's bearer token")
    flags.add_argument("--worker-token-file", type=Path, help="the bearer token workers want")
    who = flags.add_mutually_exclusive_group(required=True)
    who.add_argument("--api-keys", type=Path, metavar="FILE", help="hashed keys and their namespaces")
    who.add_argument("--no-auth", action="store_true", help="let everyone in")
    flags.add_argument("--lease-s", type=positive, default=turn.lease_s)
    flags.add_argument("--stall-s", type=positive, default=worker.stall_s)
    flags.add_argument("--suspect-s", type=positive, default=worker.suspect_s)
    flags.add_argument("--capacity-wait-s", type=not_negative, default=turn.capacity_wait_s)
    flags.add_argument("--max-moves", type=count, default=turn.max_moves)
    flags.add_argument("--wait-replicas", type=count, default=ledger.wait_replicas)
    flags.add_argument("--drain-s", type=not_negative, default=http.drain_s, help="how long turns may go on at the end")
    flags.add_argument(
        "--rate-limit", type=rate, metavar="PER_SECOND", help="sessions and turns that one key may begin (default: any)"
    )
    flags.add_argument("--log-format", choices=("json", "console"), default="json")
    return flags


def settings_of(options: argparse.Namespace) -> Settings:
    """Raises `ValueError` or `OSError` for what cannot work."""
    if options.admin_token_file is None and options.api_keys is not None:
        raise ValueError("--api-keys without --admin-token-file would leave the admin port open")
    ledger = LedgerSettings()
    return Settings(
        redis_url=options.redis,
        http=HttpSettings(options.host, options.port, options.admin_host, options.admin_port, drain_s=options.drain_s),
        turn=TurnSettings(
            lease_s=options.lease_s, max_moves=options.max_moves, capacity_wait_s=options.capacity_wait_s
        ),
        rate=RateSettings(per_second=options.rate_limit),
        worker=WorkerSettings(stall_s=options.stall_s, suspect_s=options.suspect_s),
        auth=AuthSettings(options.api_keys, _token(options.admin_token_file), _token(options.worker_token_file)),
        ledger=replace(
            ledger, wait_replicas=options.wait_replicas, deadline_s=min(ledger.deadline_s, options.lease_s / 2)
        ),
    )


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve(settings) as served:
        gc.collect()
        gc.freeze()  # what is here now stays: a collection in mid-stream need not walk through it
        ready = {"event": "ready", "url": served.url, "admin": served.admin_url, "pid": os.getpid()}
        print(json.dumps(ready), flush=True)  # noqa: T201  # the ready line is this process's standard output
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parser()
    options = flags.parse_args(arguments)
    try:
        settings = settings_of(options)
        configure(options.log_format)
        uvloop.run(run(settings))
    except (OSError, ValueError) as error:
        flags.exit(1, f"berth_gateway: {error}\n")
    return 0


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def not_negative(text: str) -> float:
    return 0.0 if float(text) == 0 else positive(text)


def rate(text: str) -> float:
    value, (least, most) = float(text), RATES
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} is not a rate from {least:g} to {most:.0f} a second")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise ValueError(f"{path} holds no token")
    return token


if __name__ == "__main__":
    sys.exit(main())
