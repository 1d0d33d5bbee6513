"""`berth top`: slots and KV pools of the local fleet, live."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from berth_api.admin import WorkerView
from berth_cli import console, options
from berth_cli.talk import short
from berth_cli.worker_client import Memory, ServerInfo, server_info
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminUnavailable
from berth_operator.local.state_dir import FleetFile, read_token

_ADMIN_TIMEOUT_S = 2.0
_BAR = 14
"""Characters of a KV pool's bar."""
_LEGEND = "KV pool: # turns that run  = held by idle sessions  - cached  . free"


@dataclass(frozen=True)
class Row:
    """A worker as the gateways and it itself see it; `pid` None: its process is not this fleet's."""

    view: WorkerView
    info: ServerInfo | None
    pid: int | None


def top(
    state_dir: options.StateDir,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one table and exit.")] = False,
) -> None:
    """Show live slots and KV pools of the local fleet."""
    with suppress(KeyboardInterrupt):  # the way out of a live view
        asyncio.run(_watch(state_dir, every_s=every, once=once))


async def _watch(state_dir: Path, *, every_s: float, once: bool) -> None:
    out = console.stdout()
    async with aiohttp.ClientSession() as http:
        if once:
            out.print(picture(*await look(options.local_fleet(state_dir), http)))
            return
        with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
            while True:
                live.update(picture(*await look(options.local_fleet(state_dir), http)), refresh=True)
                await asyncio.sleep(every_s)


async def look(fleet: FleetFile, http: aiohttp.ClientSession) -> tuple[FleetFile, list[Row] | None]:
    """Return the fleet's workers as they are now; None when no gateway answers."""
    admins = [gateway.admin for gateway in fleet.gateways]
    admin = AdminClient(lambda: admins, read_token(fleet.admin_token_file), http, timeout_s=_ADMIN_TIMEOUT_S)
    try:
        views = await admin.workers()
    except AdminUnavailable:
        return fleet, None
    token = read_token(fleet.worker_token_file)
    infos = await asyncio.gather(*(server_info(http, view.url, view.id, token) for view in views))
    pids = {worker.id: worker.pid for worker in fleet.workers}
    rows = [Row(view, info, pids.get(view.id)) for view, info in zip(views, infos, strict=True)]
    return fleet, sorted(rows, key=lambda row: row.view.id)


def picture(fleet: FleetFile, rows: list[Row] | None) -> RenderableType:
    """Return what is shown."""
    name = f"{fleet.namespace}/{fleet.fleet}"
    head = Text(f"{fleet.model}  {name}  gateways {len(fleet.gateways)}  redis {fleet.redis.url}")
    if rows is None:
        return Group(head, Text("no gateway answers", style="red"))
    # Narrow enough for a terminal of 80 columns.
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("WORKER", "PID", "STATE"):
        table.add_column(heading, no_wrap=True)
    for heading in ("SLOTS", "RUN", "IDLE", "QUEUE", "KV TOKENS"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("KV POOL", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return Group(head, table, Text(_LEGEND, style="dim"))


def _cells(row: Row) -> list[str | Text]:
    view, info = row.view, row.info
    cells: list[str | Text] = [short(view.id), str(row.pid or "-"), _state(row)]
    cells += [str(view.slots), str(len(view.running)), str(len(view.idle))]
    if info is None:
        return [*cells, "-", "-", "-"]
    memory = info.memory
    return [*cells, str(info.berth.queued), f"{memory.total - memory.available}/{memory.total}", bar(memory)]


def _state(row: Row) -> Text:
    if row.info is None:
        return Text("silent", style="red")
    if row.view.suspect:
        return Text("suspect", style="red")
    if row.view.cordoned:
        return Text("cordoned", style="yellow")
    return Text("serving", style="green")


def bar(memory: Memory) -> Text:
    """Draw a pool: `#` in use by turns, `=` held by idle sessions, `-` cached, `.` free."""
    parts = (
        ("#", memory.uncached, "bold green"),
        ("=", memory.session_held, "cyan"),
        ("-", memory.evictable + memory.protected, "blue"),
    )
    text = Text()
    for sign, tokens, style in parts:
        # Whatever there is shows, however small it is beside the pool.
        text.append(sign * -(-tokens * _BAR // max(1, memory.total)), style=style)
    text.truncate(_BAR)
    text.append("." * (_BAR - len(text)), style="dim")
    return text
