"""`python -m berth_worker`: load a model, serve it, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import structlog
import uvloop

from berth_kernels.interface import KernelError
from berth_worker import flags, logs
from berth_worker.models.errors import ModelError
from berth_worker.server.app import Server, bind

if TYPE_CHECKING:
    import socket

    from berth_worker.server.served import Served

log = structlog.get_logger("berth_worker")


def main() -> None:
    """Run until a signal. Exits with 2 and one line for what the caller got wrong, with 0 after a drain."""
    settings = flags.settings(sys.argv[1:])
    logs.configure(settings.log_format)
    try:
        bound = bind(settings.server.host, settings.server.port)
    except OSError as error:
        _fail(f"cannot listen on {settings.server.host}:{settings.server.port}: {error.strerror or error}")
    # Only now: a mistake in a flag must not cost the seconds that torch takes to load.
    from berth_worker import boot  # noqa: PLC0415

    try:
        served = boot.load(settings)
    except (ModelError, KernelError) as error:
        _fail(f"--model {settings.model.name}: {error}")
    uvloop.run(_serve(served, bound))


def _fail(message: str) -> NoReturn:
    print(f"berth_worker: error: {message}", file=sys.stderr)  # noqa: T201 - for a person, not for a log
    raise SystemExit(2)


async def _serve(served: Served, bound: socket.socket) -> None:
    loop, leave = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave.set)
    server = Server(served)
    url = await server.start(bound)
    ready = {"event": "ready", "url": url, "id": served.id, "pid": os.getpid()}
    print(json.dumps(ready), flush=True)  # noqa: T201 - the line that whoever started us waits for
    log.info("ready", url=url, id=served.id, model=served.model.name, context=served.model.context_length)
    await leave.wait()
    log.info("draining", running=served.engine.state.running, queued=served.engine.state.queued)
    leave.clear()
    drain = asyncio.create_task(server.drain())
    await asyncio.wait([drain, hurry := asyncio.create_task(leave.wait())], return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not drain.done():  # a second signal: whoever sent it does not want to wait
        drain.cancel()
        await asyncio.gather(drain, return_exceptions=True)
        await server.stop()
    else:
        await drain
    log.info("stopped")


if __name__ == "__main__":
    main()
