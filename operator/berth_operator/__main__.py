"""`python -m berth_operator`: the operator on Kubernetes. Flags to settings, one event loop, one ready line."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from berth_api.public import NAME_PATTERN
from berth_operator.errors import FleetError
from berth_operator.kube.app import running
from berth_operator.kube.settings import KubeSettings, PodSettings, Times
from berth_operator.logs import configure


def parser() -> argparse.ArgumentParser:
    times = Times()
    flags = argparse.ArgumentParser(
        prog="python -m berth_operator", description="Keeps InferenceFleets and StreamingSessions as wanted."
    )
    flags.add_argument(
        "--gateway-admin", type=_url, action="append", required=True, metavar="URL", help="an admin port; repeatable"
    )
    flags.add_argument("--admin-token-file", type=Path, required=True, help="the admin ports' bearer token")
    flags.add_argument("--worker-image", type=_word, required=True, help="of workers whose fleet names none")
    flags.add_argument(
        "--worker-token-secret",
        type=_name,
        required=True,
        metavar="NAME",
        help="Secret beside each fleet, with the key `token`",
    )
    flags.add_argument("--kubeconfig", metavar="PATH", help="default: the service account, else the user's own")
    flags.add_argument(
        "--namespace", type=_name, action="append", default=[], help="where to work; repeatable (default: everywhere)"
    )
    flags.add_argument("--host", default="127.0.0.1", help="of probes and metrics")
    flags.add_argument("--port", type=_port, default=8082, help="of probes and metrics; 0 picks a free one")
    flags.add_argument("--resync-s", type=_seconds, default=times.resync_s)
    flags.add_argument("--absent-s", type=_seconds, default=times.absent_s)
    flags.add_argument("--session-status-s", type=_seconds, default=times.session_status_s)
    flags.add_argument("--unreachable-s", type=_seconds, default=times.unreachable_s)
    flags.add_argument("--start-s", type=_seconds, default=times.start_s)
    flags.add_argument("--log-format", choices=("json", "console"), default="json")
    return flags


def settings_of(options: argparse.Namespace) -> KubeSettings:
    """Raises `ValueError` or `OSError` for what cannot work."""
    token = options.admin_token_file.read_text(encoding="utf-8").strip()
    if not token:
        raise ValueError(f"{options.admin_token_file} holds no token")
    if not token.isascii() or not token.isprintable():
        raise ValueError(f"{options.admin_token_file} holds no token of printable ASCII characters")
    if options.kubeconfig is not None and not Path(options.kubeconfig).is_file():
        raise ValueError(f"--kubeconfig {options.kubeconfig}: there is no such file")
    return KubeSettings(
        gateways=tuple(options.gateway_admin),
        admin_token=token,
        pods=PodSettings(options.worker_image, options.worker_token_secret),
        namespaces=tuple(dict.fromkeys(options.namespace)),
        kubeconfig=options.kubeconfig,
        host=options.host,
        port=options.port,
        times=Times(
            resync_s=options.resync_s,
            absent_s=options.absent_s,
            session_status_s=options.session_status_s,
            unreachable_s=options.unreachable_s,
            start_s=options.start_s,
        ),
    )


async def run(settings: KubeSettings) -> None:
    """Work until SIGTERM or SIGINT."""
    stop = asyncio.Event()

    def obey() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    obey()
    async with running(settings) as operator:

        def ready() -> None:
            obey()  # Kopf has put its own handlers in their place, and takes its time
            line = {"event": "ready", "url": operator.url, "pid": os.getpid()}
            print(json.dumps(line), flush=True)  # noqa: T201 - the line that whoever started us waits for

        await operator.run(ready, stop)


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parser()
    options = flags.parse_args(arguments)
    try:
        settings = settings_of(options)
    except (OSError, ValueError) as error:
        flags.exit(1, f"berth_operator: {error}\n")
    configure(options.log_format)
    try:
        # Not uvloop: with aiohttp above it, a connection that fails in its making closes its descriptor twice, and the
        # second time it may be somebody else's. When an API server goes there are many of those at once.
        asyncio.run(run(settings))
    except (OSError, FleetError) as error:
        flags.exit(1, f"berth_operator: {error}\n")
    return 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and below a day")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL that begins with http:// or https://")
    return text.rstrip("/")


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of Kubernetes: a-z, 0-9, - and .")
    return text


def _word(text: str) -> str:
    if not text or text != "".join(text.split()):
        raise argparse.ArgumentTypeError(f"{text!r} is empty, or has blanks in it")
    return text


if __name__ == "__main__":
    sys.exit(main())
