"""What a gateway says no to, as the command line meets it.

GatewayError                  its text is one line for a person
├── GatewayUnreachable        nobody answers at the address
└── Refused                   a problem: `type` and `status` as in `berth_api.errors`
    └── TurnFailed            a turn that began and was not committed
"""

from __future__ import annotations


class GatewayError(Exception):
    """The base of the client's errors."""


class GatewayUnreachable(GatewayError):
    """No gateway answers, or the connection broke and could not be taken up again."""


class Refused(GatewayError):
    """A gateway refused a request. `retry_after_s` is its advice, if it gave one."""

    def __init__(self, message: str, *, type_: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.type = type_
        self.status = status
        self.retry_after_s = retry_after_s


class TurnFailed(GatewayError):
    """The turn ended without being committed, or nobody knows whether it was."""
