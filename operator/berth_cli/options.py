"""Options that several commands share, and where the fleet is that they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from berth_operator.local.state_dir import FleetFile, read_fleet


def default_state_dir() -> Path:
    """Return the user's own place for a fleet's state, as the XDG base directories have it."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "berth"


StateDir = Annotated[
    Path,
    typer.Option(
        "--state-dir",
        envvar="BERTH_STATE_DIR",
        metavar="DIR",
        help="Where the fleet keeps its data, logs and tokens.",
        default_factory=default_state_dir,
        show_default="~/.local/state/berth",
    ),
]

Gateway = Annotated[
    list[str] | None,
    typer.Option(
        "--gateway", metavar="URL", help="A gateway; may be given several times. [default: the local fleet's]"
    ),
]

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The sessions' namespace.")]

ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="BERTH_API_KEY", help="For gateways that want one.")]


def gateways(urls: list[str] | None, state_dir: Path) -> list[str]:
    """Return the gateways to talk to: those named, else the local fleet's. Raises StateDirUnusable without either."""
    return urls or [gateway.url for gateway in local_fleet(state_dir).gateways]


def local_fleet(state_dir: Path) -> FleetFile:
    """Return what runs from the state directory. Raises StateDirUnusable when nothing does."""
    return read_fleet(state_dir.expanduser())
