"""What every engine's host is: a process with one engine that is told turns on stdin and says ids on stdout.

Hosts run in the environment of their engine, so they know nothing of Berth; PYTHONPATH names the folder of
`conversations`. One JSON object a line:

    in   {"turns": [{"session": "a", "ids": [...], "new": 32}, ...]}     all at once; `ids` are the new ones alone
         {"close": ["a", ...]}
    out  {"event": "ready", "version": "..."}
         {"event": "tokens", "session": "a", "ids": [...]}               as they come
         {"event": "end"}                                                after each order

End of input ends the host.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conversations import Turn


@dataclass(frozen=True)
class Setup:
    """What all engines are given alike."""

    model: Path
    threads: int
    kv_tokens: int
    """Positions of KV, of all sessions."""
    context: int
    sessions: int
    chunk: int
    """Prompt tokens a step."""


class Engine(Protocol):
    """One engine. A session begins with its first turn."""

    version: str

    def turns(self, turns: Sequence[Turn]) -> Iterator[tuple[str, list[int]]]:
        """Run the turns side by side, greedily; yield (session, output ids) as they come."""

    def close(self, session: str) -> None:
        """Forget a session."""


def main(make: Callable[[Setup], Engine]) -> None:
    """Serve the engine that `make` makes of the command line's setup."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--model", type=Path, required=True)
    for name in ("threads", "kv-tokens", "context", "sessions", "chunk"):
        flags.add_argument(f"--{name}", type=int, required=True)
    # Libraries print to stdout as they please: they get stderr's place, and what was stdout is ours alone.
    words = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**members: object) -> None:
        words.write(json.dumps(members) + "\n")

    engine = make(Setup(**vars(flags.parse_args())))
    say(event="ready", version=engine.version)
    for line in sys.stdin:
        order = json.loads(line)
        for session, ids in engine.turns([Turn(**turn) for turn in order.get("turns", [])]):
            say(event="tokens", session=session, ids=ids)
        for session in order.get("close", []):
            engine.close(session)
        say(event="end")
    # Some engines leave threads that would go on for ever.
    os._exit(0)
