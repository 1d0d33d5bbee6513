"""`berth chat`: a conversation in the terminal, or with lines from a pipe.

Waiting for a line and waiting for tokens take turns: the prompt is plain `input`, each answer runs on the event loop
until it ends. So Ctrl-C during an answer ends that answer, not the conversation.
"""

from __future__ import annotations

import asyncio
import io
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

from berth_api.public import HistoryTurn, Message, SessionCreate, SessionView, TurnCreate
from berth_api.wire import Sampling
from berth_cli import console, options, talk
from berth_cli.client import GatewayClient
from berth_cli.errors import GatewayError, GatewayUnreachable, Refused
from berth_cli.talk import Told

_PROMPT = "> "
_HELP = "/history shows what was said, /quit ends, all else is said to the model"


def chat(
    *,
    state_dir: options.StateDir,
    gateway: options.Gateway = None,
    session: Annotated[str | None, typer.Option(metavar="NAME", help="The session; made if absent.")] = None,
    namespace: options.Namespace = "default",
    fleet: Annotated[str, typer.Option(help="For a new session.")] = "default",
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 1024,
    api_key: options.ApiKey = None,
) -> None:
    """Talk to the model. The session outlives this command, the worker and the gateway."""
    client = GatewayClient(options.gateways(gateway, state_dir), api_key=api_key)
    sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
    # The runner closes the loop only after the client, whatever ends the conversation.
    with asyncio.Runner() as runner:
        runner.run(client.__aenter__())
        try:
            view = runner.run(_open(client, namespace, session, fleet))
            failed = Conversation(runner, client, view, sampling).run()
        finally:
            runner.run(client.__aexit__(None, None, None))
    if failed:
        raise typer.Exit(1)


async def _open(client: GatewayClient, namespace: str, name: str | None, fleet: str) -> SessionView:
    if name is not None:
        try:
            return await client.session(namespace, name)
        except Refused as refusal:
            if refusal.status != 404:
                raise
    return await client.create(SessionCreate(namespace=namespace, fleet=fleet, name=name))


class Conversation:
    """One session at the terminal."""

    def __init__(self, runner: asyncio.Runner, client: GatewayClient, view: SessionView, sampling: Sampling) -> None:
        self._runner = runner
        self._client = client
        self._view = view
        self._sampling = sampling
        self._out = console.stdout()
        self._interactive = sys.stdin.isatty()

    def run(self) -> bool:
        """Talk until /quit or the end of input. Returns whether a turn failed."""
        view, failed = self._view, False
        past = f", {view.turns} turns so far" if view.turns else ""
        self._out.print(f"session {view.namespace}/{view.name}{past}; {_HELP}", style="dim")
        for line in self._lines():
            if line == "/quit":
                break
            if line == "/history":
                self._runner.run(self._history())
            elif line.startswith("/"):
                self._out.print(_HELP, style="dim")
            else:
                failed = not self._say(line) or failed
        return failed

    def _lines(self) -> Iterator[str]:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")  # bytes that are no text are shown as such, not a reason to end
        if self._interactive:
            with suppress(ImportError):
                __import__("readline")  # its import gives `input` a history and editing
        while True:
            try:
                line = input(_PROMPT if self._interactive else "").strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                self._out.print()
                return
            if line:
                if not self._interactive:
                    self._out.print(f"{_PROMPT}{line}")
                yield line

    def _say(self, line: str) -> bool:
        try:
            self._runner.run(self._turn(line))
        except asyncio.CancelledError:
            self._out.print("\n  [stopped; the session is as it was before]", style="yellow")
            return True
        except GatewayError as error:
            if isinstance(error, GatewayUnreachable) and not self._interactive:
                raise
            self._out.print()
            console.complain(str(error))
            return False
        return True

    async def _turn(self, line: str) -> None:
        """Say a line and show the answer. Ctrl-C ends the answer, which is kept; once more, nothing is kept."""
        turn = TurnCreate(messages=[Message("user", line)], sampling=self._sampling)
        brake = _Brake(self._client, self._view)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, brake.pull)
        try:
            await talk.show(self._client.turn(self._view.namespace, self._view.name, turn), self._out, brake)
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def _history(self) -> None:
        history = await self._client.history(self._view.namespace, self._view.name)
        show_history(history.turns, self._out)


class _Brake:
    """Hears of a turn's progress, and ends it: first by asking for its end, then by hanging up."""

    def __init__(self, client: GatewayClient, view: SessionView) -> None:
        self._client = client
        self._view = view
        self._answer = asyncio.current_task()
        self._turn = ""
        self._order: asyncio.Task[None] | None = None

    async def __call__(self, told: Told) -> None:
        self._turn = told.turn

    def pull(self) -> None:
        """End the turn."""
        if self._turn and self._order is None:
            self._order = asyncio.create_task(self._stop())
        elif self._answer is not None:
            self._answer.cancel()

    async def _stop(self) -> None:
        # A turn that has just ended by itself needs no order any more.
        with suppress(GatewayError):
            await self._client.stop(self._view.namespace, self._view.name, self._turn)


def show_history(turns: list[HistoryTurn], out: Console) -> None:
    """Print turns as they were said, the template's own tokens included."""
    for turn in turns:
        out.print(f"{_PROMPT}{console.harmless(turn.input_text.strip())}")
        out.print(console.harmless(turn.text.strip()), style="bold")
