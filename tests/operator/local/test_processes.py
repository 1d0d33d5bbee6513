"""Child processes: their ready line, their last words, their end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from berth_operator.local.processes import Child

PATIENCE_S = 15.0


@pytest.fixture
def start(tmp_path: Path):
    """Start a few lines of Python as a child."""
    children = []

    def run(code: str, on_change: Callable[[], None] = lambda: None) -> Child:
        child = Child("child", [sys.executable, "-c", code], log=tmp_path / "log", on_change=on_change)
        children.append(child)
        return child

    yield run
    for child in children:
        if child.alive:
            os.killpg(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - another process will not set an event
            await asyncio.sleep(0.01)


async def ended(child: Child) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await child.ended()


async def test_the_ready_line_is_found_among_others(start, tmp_path) -> None:
    changes = []
    ready = r'print("{\"event\": \"ready\", \"url\": \"http://x\"}", flush=True)'
    child = start(
        f"print('noise'); {ready}; print('more', flush=True); import time; time.sleep(60)", lambda: changes.append(1)
    )
    await until(lambda: child.ready)
    assert child.ready == {"event": "ready", "url": "http://x"}
    assert changes == [1]
    await until(lambda: (tmp_path / "log").read_text() == "noise\nmore\n")
    child.kill()
    await ended(child)
    assert changes == [1, 1]


async def test_last_words_are_of_this_life(start, tmp_path) -> None:
    (tmp_path / "log").write_text("error: of an earlier life\n")
    child = start("pass")
    await ended(child)
    assert child.last_words() == "it said nothing"
    child = start("import sys; print('error: port 80 is taken', file=sys.stderr); sys.exit(3)")
    await ended(child)
    assert child.obituary() == f"child (pid {child.pid}) exited with 3: error: port 80 is taken"


async def test_last_words_in_json_are_made_plain(start) -> None:
    line = '{"event": "cannot start", "error": "no such model", "level": "error"}'
    child = start(f"import sys; print({line!r}, file=sys.stderr)")
    await ended(child)
    assert child.last_words() == "cannot start: no such model"


async def test_a_signal_is_named(start) -> None:
    child = start("import os; os.kill(os.getpid(), 9)")
    await ended(child)
    assert child.returncode == -9
    assert child.obituary() == f"child (pid {child.pid}) was killed by SIGKILL"


async def test_end_kills_who_does_not_listen(start) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    child = start(deaf)
    await until(lambda: child.last_words() == "deaf")
    await child.end(0.05)
    assert child.returncode == -signal.SIGKILL


async def test_what_a_child_started_goes_with_it(start) -> None:
    child = start(
        "import subprocess, sys;"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)"
    )
    await ended(child)
    grandchild = int(child.last_words())

    def gone() -> bool:
        with suppress(ProcessLookupError, FileNotFoundError):
            return Path(f"/proc/{grandchild}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    await until(gone)


async def test_a_program_that_does_not_exist_is_an_oserror(tmp_path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        Child("child", ["/nowhere"], log=tmp_path / "log", on_change=lambda: None)
