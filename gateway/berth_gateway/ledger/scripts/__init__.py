"""The Lua scripts, one file an operation, put together with the helpers they name.

A script's first line is `-- uses: base session …`: those files of `lib/` go before it, in that order, after a table of
constants. Redis keeps a script by its sha1, so the text of one process never changes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_USES = "-- uses:"


@dataclass(frozen=True, slots=True)
class Script:
    """A whole script; `sha` is its name in Redis."""

    name: str
    text: str
    sha: str


@cache
def source(path: str) -> str:
    """Return the text of a file of this package."""
    return files(__name__).joinpath(path).read_text("utf-8")


def operations() -> list[str]:
    """Return the names of all operations."""
    return sorted(entry.name.removesuffix(".lua") for entry in files(__name__).iterdir() if entry.name.endswith(".lua"))


def compose(name: str, constants: Mapping[str, int | str]) -> Script:
    """Return the operation `name` with its helpers. `constants` become the Lua table `CONFIG`."""
    body = source(f"{name}.lua")
    first = body.partition("\n")[0]
    if not first.startswith(_USES):
        raise ValueError(f"{name}.lua must begin with '{_USES} ...'")
    table = ", ".join(f"{key} = {_literal(value)}" for key, value in sorted(constants.items()))
    helpers = [source(f"lib/{helper}.lua") for helper in first.removeprefix(_USES).split()]
    text = "\n".join([f"local CONFIG = {{{table}}}", *helpers, body])
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _literal(value: int | str) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
