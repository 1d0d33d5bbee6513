"""Where the commands write: rich on a terminal, plain text without control codes anywhere else."""

from __future__ import annotations

import sys
from typing import IO

from rich.console import Console

_PLAIN_WIDTH = 200
"""Where there is no terminal, nothing is cut short for want of room."""
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
"""Control characters to something that can be seen: a model must not steer the terminal of whoever reads it."""


def on(file: IO[str]) -> Console:
    """Return a console on a file. Text that is not ours is never read as markup."""
    width = None if file.isatty() else _PLAIN_WIDTH
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def stdout() -> Console:
    """Return the console for what was asked for."""
    return on(sys.stdout)


def harmless(text: str) -> str:
    """Return text from elsewhere with its control characters made visible."""
    return text.translate(_PICTURES)


def complain(message: str) -> None:
    """Say on one line of standard error what went wrong."""
    print(f"berth: {harmless(' '.join(message.split()))}", file=sys.stderr)
