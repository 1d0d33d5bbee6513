"""The `berth` command. Errors are one line on standard error: exit code 2 for a wrong call, 1 for all else."""

from __future__ import annotations

import sys

import typer

from berth_cli import chat, demo, sessions, top, up
from berth_cli.console import complain
from berth_cli.errors import GatewayError
from berth_operator.errors import FleetError

cli = typer.Typer(
    name="berth",
    help="Stateful LLM sessions that outlive their worker.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.command("up")(up.up)
cli.command("chat")(chat.chat)
cli.command("top")(top.top)
cli.command("demo")(demo.demo)
cli.add_typer(sessions.cli, name="sessions")


def app() -> int:
    """Run the command of `sys.argv` and return its exit code."""
    try:
        return int(cli(sys.argv[1:] or ["--help"], standalone_mode=False) or 0)
    except typer.TyperException as error:
        complain(error.format_message())
        return error.exit_code
    except (FleetError, GatewayError) as error:
        complain(str(error))
        return 1
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        sys.stderr.close()
        return 1
