"""The API server's audit log: who asked for what, counted by the server and not by those who asked.

A request's line is written as it ends, which may be just after its answer has come: `Audit.caught_up` waits for a line
of its own behind them.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from clusterkit.api import Api
from clusterkit.waiting import until

_BLOCK = 1 << 16
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Request:
    """One request to the API server. `resource` includes a subresource, as in RBAC: `pods/status`."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int
    at: float
    """Seconds since the epoch when it was received."""
    agent: str
    uri: str

    @property
    def is_write(self) -> bool:
        """Whether it changed something: by verb, and by answer."""
        return self.verb in WRITES and self.code < 400


@dataclass(frozen=True)
class Audit:
    """Reads the log at `path`. A `since` is a position from `mark`, so that a test counts its own time only."""

    path: Path

    def mark(self) -> int:
        """Return the position after all that is in the log now; a line that is still being written is not in it."""
        with self.path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            while end:
                begin = max(0, end - _BLOCK)
                log.seek(begin)
                if (found := log.read(end - begin).rfind(b"\n")) >= 0:
                    return begin + found + 1
                end = begin
        return 0

    async def caught_up(self, api: Api) -> int:
        """Wait until all requests that were answered before are in the log; return the position after them."""
        token = secrets.token_hex(8)
        before = self.mark()
        await api.get(f"/version?caught-up={token}")

        async def seen() -> bool:
            return any(token in request.uri for request in self.requests(since=before))

        await until(seen, "the audit log shows our request")
        return self.mark()

    def requests(
        self,
        *,
        since: int = 0,
        user: str | None = None,
        verb: str | None = None,
        resource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
    ) -> list[Request]:
        """Return the requests that match, oldest first. `user` may be the end of a name: `:berth-operator`."""
        wanted = {"verb": verb, "resource": resource, "namespace": namespace, "name": name}
        asked = {key: value for key, value in wanted.items() if value is not None}
        return [
            request
            for request in self._read(since)
            if (user is None or request.user.endswith(user))
            and all(getattr(request, key) == value for key, value in asked.items())
        ]

    def writes(self, **filters: Any) -> list[Request]:
        """Return the requests, filtered as in `requests`, that changed something."""
        return [request for request in self.requests(**filters) if request.is_write]

    def _read(self, since: int) -> Iterator[Request]:
        with self.path.open("rb") as log:
            log.seek(since)
            for line in log:
                if line.endswith(b"\n"):  # else still being written
                    yield _request(json.loads(line))


def _request(event: dict[str, Any]) -> Request:
    ref = event.get("objectRef", {})
    parts = [ref.get("resource", ""), ref.get("subresource", "")]
    received = datetime.fromisoformat(event["requestReceivedTimestamp"])
    return Request(
        user=event["user"].get("username", ""),
        verb=event["verb"],
        resource="/".join(part for part in parts if part),
        namespace=ref.get("namespace", ""),
        name=ref.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        at=received.timestamp(),
        agent=event.get("userAgent", ""),
        uri=event["requestURI"],
    )
