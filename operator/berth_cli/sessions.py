"""`berth sessions`: list, show and delete them."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer
from rich.table import Table

from berth_cli import console, options
from berth_cli.client import GatewayClient
from berth_cli.talk import short

cli = typer.Typer(help="List, show and delete sessions.")

Name = Annotated[str, typer.Argument(help="The session's name.")]


@cli.command("list")
def list_(state_dir: options.StateDir, gateway: options.Gateway = None, api_key: options.ApiKey = None) -> None:
    """List all sessions that the gateway shows."""

    async def run() -> None:
        async with GatewayClient(options.gateways(gateway, state_dir), api_key=api_key) as client:
            found = await client.sessions()
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("SESSION", "STATE", "TURNS", "TOKENS", "IDLE", "WORKER"):
            table.add_column(heading)
        for view in found:
            idle = f"{max(0.0, time.time() - view.last_active):.0f} s"
            name = f"{view.namespace}/{view.name}"
            table.add_row(name, view.state, str(view.turns), str(view.tokens), idle, short(view.worker or "-"))
        console.stdout().print(table if found else "no sessions")

    asyncio.run(run())


@cli.command("show")
def show(
    name: Name,
    state_dir: options.StateDir,
    namespace: options.Namespace = "default",
    gateway: options.Gateway = None,
    api_key: options.ApiKey = None,
) -> None:
    """Show a session and what was said in it."""

    async def run() -> None:
        async with GatewayClient(options.gateways(gateway, state_dir), api_key=api_key) as client:
            view = await client.session(namespace, name)
            history = await client.history(namespace, name)
        out = console.stdout()
        for field in view.__struct_fields__:
            out.print(f"{field:<12} {getattr(view, field)}")
        for turn in history.turns:
            out.print(f"\n[{turn.turn_index}] {turn.head}", style="dim")
            out.print(console.harmless(turn.input_text))
            out.print(console.harmless(turn.text), style="bold")

    asyncio.run(run())


@cli.command("delete")
def delete(
    name: Name,
    state_dir: options.StateDir,
    namespace: options.Namespace = "default",
    gateway: options.Gateway = None,
    api_key: options.ApiKey = None,
) -> None:
    """Close a session for good; a turn that runs is finished first."""

    async def run() -> None:
        async with GatewayClient(options.gateways(gateway, state_dir), api_key=api_key) as client:
            await client.delete(namespace, name)
        console.stdout().print(f"{namespace}/{name} is closed")

    asyncio.run(run())
