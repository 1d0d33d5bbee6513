"""What only the ledger can say. Everything else it raises is in `berth_api.errors`.

BerthError
├── Conflict 409: FenceLost
└── DurabilityUnknown 503, LedgerFault 500
"""

from __future__ import annotations

from berth_api.errors import BerthError, Conflict


class FenceLost(Conflict):
    """This (epoch, attempt, turn) may not act any more: the turn was taken over, ended, or its session was closed."""

    type = "fence_lost"


class DurabilityUnknown(BerthError):
    """The primary has the commit, too few replicas said so in time: it may be lost by a failover."""

    type, status = "durability_unknown", 503


class LedgerFault(BerthError):
    """Redis refused what we sent, or answered what we do not understand: a fault of ours or foreign data."""

    type, status = "ledger_fault", 500
