"""A thousand sessions applied at once: all get Ready, few writes tell of it, and then the operator is silent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clusterkit.audit import Audit
from clusterkit.crowd import Crowd, by_the_operator, writes_a_session
from clusterkit.platform import ACCOUNT
from clusterkit.scene import Scene

SESSIONS, SLOTS = 1000, 64
MOST_WRITES = 4
"""To one session's status until it is Ready; one or two are normal."""
IDLE_S = 45.0


@pytest.fixture
def berth_args() -> dict[str, Any]:
    """The product's own pace, with several complete lists in the idle stretch."""
    return {"operator_args": ["--session-status-s", "10", "--resync-s", "10"], "direct": True}


async def test_a_thousand_sessions_get_ready_and_cost_nothing_after_that(scene: Scene, audit: Audit) -> None:
    await scene.fleet(slots=SLOTS)
    await scene.ready("ifl/tiny")
    crowd = Crowd(scene, SESSIONS)
    before = audit.mark()

    await crowd.make()
    await crowd.all_ready(180)
    idle = await audit.caught_up(scene.api)
    writes = writes_a_session(audit, before)
    assert len(writes) == SESSIONS
    assert max(writes.values()) <= MOST_WRITES, writes.most_common(3)
    phases = [one["status"]["phase"] for one in await scene.api.list(crowd.path)]
    assert (phases.count("Bound"), phases.count("Hibernated")) == (SLOTS, SESSIONS - SLOTS)

    await asyncio.sleep(IDLE_S)  # silence can only be waited for
    assert audit.writes(since=idle, user=f":{ACCOUNT}") == []
    assert by_the_operator(audit, idle), "the operator is alive, and looks"

    await crowd.delete()
    await crowd.all_closed(60)
