"""Structured logs on standard error; standard output belongs to the ready line."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from berth_gateway.ledger.records import Fence

_log = structlog.get_logger(__name__)


def configure(form: Literal["json", "console"]) -> None:
    """JSON lines for machines, colours for people."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")


def log_of(fence: Fence) -> structlog.stdlib.BoundLogger:
    """Return a logger that names a turn: made where there is something to say, for most turns say one thing."""
    log: structlog.stdlib.BoundLogger = _log.bind(session=f"{fence.namespace}/{fence.name}", turn=fence.turn)
    return log
