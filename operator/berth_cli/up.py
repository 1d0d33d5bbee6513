"""`berth up`: a whole fleet on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from berth_cli.options import StateDir
from berth_cli.report import JsonReport, PlainReport
from berth_operator.local.events import Event
from berth_operator.local.fleet import running
from berth_operator.local.settings import LocalSettings

_WORKER = "Worker settings (the worker's own defaults where not given)"
_GATEWAY = "Gateway settings (the gateway's own defaults where not given)"


def _worker(flag: str, text: str) -> object:
    return typer.Option(flag, help=text, rich_help_panel=_WORKER, show_default=False)


def _gateway(flag: str, text: str) -> object:
    return typer.Option(flag, help=text, rich_help_panel=_GATEWAY, show_default=False)


def up(
    *,
    state_dir: StateDir,
    model: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="A built-in model or a checkpoint folder.")
    ] = "berth-tiny",
    workers: Annotated[int, typer.Option(min=1, help="Engine processes.")] = 2,
    gateways: Annotated[int, typer.Option(min=1, help="Gateway processes.")] = 1,
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the first gateway; 0 picks a free one.")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON line for readiness and for each change.")] = False,
    dtype: Annotated[str | None, _worker("--dtype", "auto, float32 or bfloat16.")] = None,
    attention: Annotated[str | None, _worker("--attention", "reference, native, flashinfer or auto.")] = None,
    slots: Annotated[int | None, _worker("--slots", "Sessions that keep KV.")] = None,
    page_size: Annotated[int | None, _worker("--page-size", "Tokens of a KV page.")] = None,
    max_total_tokens: Annotated[int | None, _worker("--max-total-tokens", "The KV pool, in tokens.")] = None,
    context_length: Annotated[int | None, _worker("--context-length", "Most tokens of a session.")] = None,
    chunked_prefill_size: Annotated[int | None, _worker("--chunked-prefill-size", "Prefill tokens a step.")] = None,
    max_running: Annotated[int | None, _worker("--max-running", "Most requests in a batch.")] = None,
    queue_limit: Annotated[int | None, _worker("--queue-limit", "Most requests that wait.")] = None,
    queue_timeout: Annotated[float | None, _worker("--queue-timeout", "Seconds a request may wait.")] = None,
    mixed_chunk: Annotated[bool, _worker("--mixed-chunk", "Prefill and decode in one step.")] = False,
    check_memory: Annotated[str | None, _worker("--check-memory", "off, idle or busy.")] = None,
    retract_every: Annotated[int | None, _worker("--retract-every", "Retract every N steps (a test).")] = None,
    threads: Annotated[int | None, _worker("--threads", "Compute threads; default: a share of the cores.")] = None,
    lease_s: Annotated[float | None, _gateway("--lease-s", "A turn's lease.")] = None,
    stall_s: Annotated[float | None, _gateway("--stall-s", "A worker's silence before a turn moves.")] = None,
    suspect_s: Annotated[float | None, _gateway("--suspect-s", "How long a failed worker is avoided.")] = None,
    capacity_wait_s: Annotated[float | None, _gateway("--capacity-wait-s", "How long a turn waits for room.")] = None,
    max_moves: Annotated[int | None, _gateway("--max-moves", "How often a turn may move.")] = None,
) -> None:
    """Start a fleet on this machine and keep it alive until Ctrl-C."""
    settings = LocalSettings(
        state_dir=Path(state_dir).expanduser(),
        model=model,
        workers=workers,
        gateways=gateways,
        gateway_port=gateway_port,
        worker_options=flags(
            {
                "--dtype": dtype,
                "--attention": attention,
                "--slots": slots,
                "--page-size": page_size,
                "--max-total-tokens": max_total_tokens,
                "--context-length": context_length,
                "--chunked-prefill-size": chunked_prefill_size,
                "--max-running": max_running,
                "--queue-limit": queue_limit,
                "--queue-timeout": queue_timeout,
                "--mixed-chunk": mixed_chunk,
                "--check-memory": check_memory,
                "--retract-every": retract_every,
                "--threads": threads,
            }
        ),
        gateway_options=flags(
            {
                "--lease-s": lease_s,
                "--stall-s": stall_s,
                "--suspect-s": suspect_s,
                "--capacity-wait-s": capacity_wait_s,
                "--max-moves": max_moves,
            }
        ),
    )
    asyncio.run(keep(settings, JsonReport() if json else PlainReport(settings)))


def flags(given: Mapping[str, object]) -> tuple[str, ...]:
    """Return the command-line options that were given, as they are passed on: a switch, or a name and its value."""
    passed: list[str] = []
    for flag, value in given.items():
        if value is True:
            passed.append(flag)
        elif value is not None and value is not False:
            passed += (flag, str(value))
    return tuple(passed)


async def keep(settings: LocalSettings, report: Callable[[Event], None]) -> None:
    """Run a fleet until SIGINT, SIGTERM or SIGHUP; a second one ends it at once."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    asked = False

    def end() -> None:
        nonlocal asked
        asked = True
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    try:
        async with running(settings, report) as fleet:
            await fleet.wait()
    except asyncio.CancelledError:
        if not asked:
            raise
