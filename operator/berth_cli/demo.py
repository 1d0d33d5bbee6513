"""`berth demo`: a conversation whose worker is killed in the middle of an answer, and the proof that it did not matter.

The same turns are said twice, greedily: once while the worker that serves the session is killed mid-answer, once on a
fresh session in peace. Every token id has to be the same.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from berth_api.public import Message, SessionCreate, TurnCreate
from berth_api.wire import Sampling
from berth_cli import console, talk
from berth_cli.client import GatewayClient
from berth_cli.errors import GatewayError
from berth_cli.talk import Told
from berth_operator.local.events import Event, Problem
from berth_operator.local.fleet import LocalFleet, running
from berth_operator.local.settings import LocalSettings

NAMESPACE = "default"
KILL_AFTER = 80
"""Tokens of the long answer at which its worker is killed: it is well under way then, and far from its end."""
BEFORE = ("Hello!", "My cat is called Milo.", "My favourite colour is green.", "How are you?")
LONG = "Tell me a story about my cat."
AFTER = ("What is my cat called?", "What is my favourite colour?")


@dataclass
class Outcome:
    """What the demo measured. `killed_at` None: the answer had ended before anybody could be killed."""

    failed: list[Told] = field(default_factory=list)
    unfailed: list[Told] = field(default_factory=list)
    killed_at: float | None = None

    @property
    def long(self) -> Told:
        """The answer that was broken."""
        return self.failed[len(BEFORE)]

    @property
    def gap_s(self) -> float | None:
        """Seconds from the kill to the next token; None when no answer was broken."""
        if self.killed_at is None or self.long.first_after_move is None:
            return None
        return self.long.first_after_move - self.killed_at

    @property
    def equal(self) -> bool:
        """Whether every turn of both runs has the same token ids."""
        return [told.ids for told in self.failed] == [told.ids for told in self.unfailed]


def demo(
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help="A built-in model or a checkpoint.")] = "berth-tiny",
    dtype: Annotated[str, typer.Option(help="float32 makes the runs comparable to the bit.")] = "float32",
) -> None:
    """Kill a worker in the middle of an answer, and see the answer go on."""
    out = console.stdout()
    with tempfile.TemporaryDirectory(prefix="berth-demo-") as folder:
        settings = LocalSettings(Path(folder), model, workers=2, worker_options=("--dtype", dtype))
        outcome = asyncio.run(_run(settings, out))
    out.print()
    out.print(table(outcome))
    if outcome.gap_s is None:
        raise GatewayError("the worker was not killed in the middle of the answer, so nothing was shown")
    if not outcome.equal:
        raise GatewayError("the answers differ from those of the unfailed run")


async def _run(settings: LocalSettings, out: Console) -> Outcome:
    out.print(f"Starting a fleet: Redis, a gateway, {settings.workers} workers with {settings.model}", style="dim")
    outcome = Outcome()
    async with running(settings, _reporter(out)) as fleet, GatewayClient(fleet.gateways) as client:
        workers = ", ".join(talk.short(worker.id) for worker in fleet.workers)
        out.print(f"The workers are {workers}. One of them will die.\n", style="dim")
        killer = Killer(fleet, out)
        outcome.failed = await converse(client, out, killer)
        outcome.killed_at = killer.killed_at
        out.print("\nThe same once more on a fresh session, in peace:\n", style="dim")
        outcome.unfailed = await converse(client, out, None)
    return outcome


def _reporter(out: Console) -> Callable[[Event], None]:
    def report(event: Event) -> None:
        if isinstance(event, Problem):
            out.print(f"\n  [{event.message}]", style="red")

    return report


class Killer:
    """Kills the worker of a turn once enough of the answer has come."""

    def __init__(self, fleet: LocalFleet, out: Console) -> None:
        self._fleet = fleet
        self._out = out
        self.killed_at: float | None = None

    async def __call__(self, told: Told) -> None:
        """Hear of one more token."""
        if self.killed_at is not None or len(told.ids) < KILL_AFTER:
            return
        pid = next(worker.pid for worker in self._fleet.workers if worker.id == told.worker)
        self.killed_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        self._out.print(f"\n  [kill -9 {pid}: {talk.short(told.worker)}]", style="bold red")


async def converse(client: GatewayClient, out: Console, killer: Killer | None) -> list[Told]:
    """Say all of it on a new session; the killer listens to the long answer."""
    session = await client.create(SessionCreate())
    heard = []
    for line in (*BEFORE, LONG, *AFTER):
        out.print(f"> {line}")
        turn = TurnCreate(messages=[Message("user", line)], sampling=Sampling(temperature=0, max_new_tokens=600))
        heard.append(await talk.show(client.turn(NAMESPACE, session.name, turn), out, killer if line == LONG else None))
    return heard


def table(outcome: Outcome) -> Table:
    """Return the demo's findings."""
    rows = Table(title="A session outlives its worker", title_justify="left", show_header=False)
    for name, value in findings(outcome):
        rows.add_row(name, value)
    return rows


def findings(outcome: Outcome) -> Sequence[tuple[str, str]]:
    """Return what there is to say, with units."""
    long, gap = outcome.long, outcome.gap_s
    if gap is None:
        return [("killed mid-answer", "no")]
    tokens = sum(len(told.ids) for told in outcome.failed)
    verdict = "yes" if outcome.equal else "NO"
    again = sum(move.recomputed_tokens for move in long.moves)
    return [
        ("killed at token", f"{KILL_AFTER} of {len(long.ids)}"),
        ("moved", " -> ".join([talk.short(long.moves[0].from_), *(talk.short(move.to) for move in long.moves)])),
        ("failover: kill to the next token", f"{gap * 1000:.0f} ms"),
        ("tokens computed again", str(again)),
        ("equal to the unfailed run", f"{verdict}, {tokens} ids in {len(outcome.failed)} turns"),
    ]
