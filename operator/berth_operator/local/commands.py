"""The command lines of a local fleet's gateways and workers."""

from __future__ import annotations

from pathlib import Path

from berth_operator.local.settings import LOOPBACK, LocalSettings, share_of_cores


def worker(settings: LocalSettings, token: Path) -> list[str]:
    """Return the command of every worker, without its pod uid. The system picks the ports."""
    options = ["--model", settings.model, "--host", LOOPBACK, "--port", "0", "--token-file", str(token)]
    if "--threads" not in settings.worker_options:
        options += ["--threads", str(share_of_cores(settings.workers))]
    return [*settings.commands.worker, *options, *settings.worker_options]


def gateway(settings: LocalSettings, redis_url: str, admin_token: Path, worker_token: Path) -> list[str]:
    """Return the command of every gateway, without its ports. On loopback it is open to this machine's users."""
    options = ["--redis", redis_url, "--host", LOOPBACK, "--admin-host", LOOPBACK, "--no-auth"]
    tokens = ["--admin-token-file", str(admin_token), "--worker-token-file", str(worker_token)]
    # A little less than we wait for it: it should end its turns by itself, not be killed over them.
    drain = ["--drain-s", f"{settings.times.drain_s * 0.75:g}"]
    return [*settings.commands.gateway, *options, *tokens, *drain, *settings.gateway_options]
