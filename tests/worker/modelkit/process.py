"""A worker as a process of its own: what a client of a deployed one meets."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

STOP_S = 10.0


@dataclass
class WorkerProcess:
    """`python -m berth_worker` with `args`, started on demand; its log goes to this process's stderr."""

    args: tuple[str, ...]
    url: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "berth_worker", *self.args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the worker did not start: {command}"
        self.url = json.loads(line)["url"]

    def healthy(self) -> bool:
        """Say whether it runs and trusts its own books."""
        if self.process is None or self.process.poll() is not None:
            return False
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=STOP_S) as response:
                return bool(response.status == 200)
        except urllib.error.URLError:
            return False

    def stop(self) -> None:
        """Kill it, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=STOP_S)


def flags(options: dict[str, object]) -> Iterable[str]:
    """Yield a command line's words for `options`: {"page_size": 16, "mixed_chunk": True}."""
    for name, value in options.items():
        if value is not False:
            yield f"--{name.replace('_', '-')}"
        if not isinstance(value, bool):
            yield str(value)
