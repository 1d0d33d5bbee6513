"""The command line: flags to settings. A bad value says which flag is wrong and exits with 2."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from berth_worker.builtin import resolve
from berth_worker.server.app import loopback
from berth_worker.settings import CacheSettings, ModelSettings, ScheduleSettings, ServerSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_PAGE_SIZE = 256


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time that can pass")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    model, cache, schedule, server = ModelSettings(""), CacheSettings(), ScheduleSettings(), ServerSettings()
    many = _number(1, 1 << 30)
    flags = argparse.ArgumentParser("berth_worker", description="Serve one model with sessions.", allow_abbrev=False)
    flags.add_argument("--model", required=True, metavar="NAME|PATH", help="a built-in model or a checkpoint folder")
    flags.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default=model.dtype)
    flags.add_argument("--attention", choices=["reference", "native", "flashinfer", "auto"], default=model.attention)
    flags.add_argument("--threads", type=_number(1, 1024), help="compute threads (default: torch's)")
    flags.add_argument("--page-size", type=_number(1, MAX_PAGE_SIZE), default=cache.page_size, help="tokens")
    flags.add_argument("--slots", type=_number(1, 1 << 16), default=cache.slots, help="sessions that keep KV")
    flags.add_argument("--max-total-tokens", type=many, help="KV pool in tokens (default: what 256 MiB hold)")
    flags.add_argument("--context-length", type=many, help="tokens of history, input and output (default: the model's)")
    flags.add_argument("--check-memory", choices=["off", "idle", "busy"], default=cache.check)
    flags.add_argument("--chunked-prefill-size", type=many, default=schedule.chunked_prefill_size, help="tokens a step")
    flags.add_argument("--max-running", type=many, help="requests in a batch (default: --slots)")
    flags.add_argument("--queue-limit", type=many, default=schedule.queue_limit, help="requests that may wait")
    flags.add_argument("--queue-timeout", type=_seconds, help="seconds a request may wait (default: for ever)")
    flags.add_argument("--mixed-chunk", action="store_true", help="decodes and prefill chunks share a step")
    flags.add_argument(
        "--retract-every", type=many, metavar="N", help="for tests: make a running request wait again every N steps"
    )
    flags.add_argument("--host", default=server.host)
    flags.add_argument("--port", type=_number(0, 65535), default=server.port, help="0 picks a free one")
    flags.add_argument("--token-file", type=Path, help="file with the token that callers must send")
    flags.add_argument("--pod-uid", default=server.pod_uid, help="first half of the worker's id")
    flags.add_argument(
        "--drain-s", type=_seconds, default=server.drain_s, help="what running turns are given to end after SIGTERM"
    )
    flags.add_argument("--log-format", choices=["json", "console"], default="json")
    return flags


def settings(argv: Sequence[str]) -> Settings:
    """Return the settings that `argv` asks for. Exits with 2 and one line on stderr if they make no sense."""
    flags = parser()
    given = flags.parse_args(argv)
    try:
        resolve(given.model)
    except ValueError as error:
        flags.error(f"--model: {error}")
    token = _token(flags, given.token_file)
    if token is None and not loopback(given.host):
        flags.error(f"--host {given.host} can be reached from other machines: it wants a --token-file")
    if given.max_total_tokens is not None and given.max_total_tokens < given.page_size:
        flags.error(f"--max-total-tokens {given.max_total_tokens} is less than a page of {given.page_size} tokens")
    return Settings(
        ModelSettings(given.model, given.dtype, given.attention, given.threads),
        CacheSettings(
            page_size=given.page_size,
            slots=given.slots,
            max_total_tokens=given.max_total_tokens,
            context_length=given.context_length,
            check=given.check_memory,
        ),
        ScheduleSettings(
            chunked_prefill_size=given.chunked_prefill_size,
            max_running=given.max_running,
            queue_limit=given.queue_limit,
            queue_timeout_s=given.queue_timeout,
            mixed_chunk=given.mixed_chunk,
            retract_every=given.retract_every,
        ),
        ServerSettings(host=given.host, port=given.port, token=token, pod_uid=given.pod_uid, drain_s=given.drain_s),
        given.log_format,
    )


def _token(flags: argparse.ArgumentParser, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        flags.error(f"--token-file {path}: {error}")
    if not token or not token.isascii() or not token.isprintable():
        flags.error(f"--token-file {path}: not a token of printable ASCII characters")
    return token
