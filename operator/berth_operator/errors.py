"""What can go wrong around a fleet, said so that a person can act on it.

FleetError
├── AdminUnavailable     no gateway answers (the plan fails static)
├── AdminRefused         a gateway answers no: asking again will not help
│   └── CursorGone       the changes since then are not all known any more: list again
├── ClusterUnavailable   the API server does not answer, or cannot now
├── ClusterRefused       the API server answers no: asking again will not help
│   └── ClusterConflict  something of that name, or with another uid, is there
├── ChildFailed          a process ended before it was ready
├── StateDirInUse        another fleet lives in the state directory
├── StateDirUnusable     it cannot be made, read or written
└── RedisMissing         no Redis server on this machine
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class FleetError(Exception):
    """The base; its text is one line that names the cause."""


class AdminUnavailable(FleetError):
    """No gateway could be asked."""


class AdminRefused(FleetError):
    """A gateway refused an order; `type` and `members` are the problem's, as in `berth_api.errors`."""

    def __init__(self, message: str, *, type_: str, status: int, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.type = type_
        self.status = status
        self.members = dict(members or {})


class CursorGone(AdminRefused):
    """A cursor of `changes` is too old, or of another ledger."""


class ClusterUnavailable(FleetError):
    """The API server could not be asked."""


class ClusterRefused(FleetError):
    """The API server refused a call; `status` is HTTP's."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class ClusterConflict(ClusterRefused):
    """What is there is not what the call was meant for."""


class ChildFailed(FleetError):
    """A process ended before it was ready, by its own decision."""


class StateDirInUse(FleetError):
    """A state directory belongs to one running fleet at a time."""


class StateDirUnusable(FleetError):
    """The file system refuses."""


class RedisMissing(FleetError):
    """There is no Redis server to start."""
