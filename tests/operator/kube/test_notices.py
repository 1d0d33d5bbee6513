"""Events for people: named by what they say, so that they are told once."""

from __future__ import annotations

import re

import pytest

from berth_operator.errors import ClusterRefused, ClusterUnavailable
from berth_operator.kube.notices import TEXT_MOST, Notice, tell
from kubekit.bodies import session
from kubekit.clock import START, Clock
from kubekit.cluster import FakeCluster

NOTICE = Notice("Warning", "HistoryLost", "the ledger has lost turns")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster(Clock())


async def test_an_event_is_about_its_object(cluster: FakeCluster) -> None:
    await tell(cluster, session(), NOTICE, START)  # type: ignore[arg-type]
    ((name, event),) = cluster.events.items()
    assert re.fullmatch(r"alice\.[0-9a-f]{16}", name)
    assert event["metadata"]["namespace"] == "team"
    assert event["involvedObject"] == {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "StreamingSession",
        "name": "alice",
        "namespace": "team",
        "uid": "session-1",
    }
    assert (event["type"], event["reason"], event["message"]) == NOTICE[:3]
    assert (event["firstTimestamp"], event["count"]) == ("2026-09-21T14:13:20Z", 1)


async def test_what_was_told_is_not_told_again(cluster: FakeCluster) -> None:
    for later in range(3):
        await tell(cluster, session(), NOTICE, START + later)  # type: ignore[arg-type]
    assert len(cluster.events) == 1


async def test_one_occasion_is_told_once_in_whatever_words(cluster: FakeCluster) -> None:
    """An operator that has never seen the lost pod names it by its uid."""
    for message in ("after tiny-0a1b-0 was lost", "after 3f2a… was lost"):
        await tell(cluster, session(), Notice("Normal", "Recovered", message, "recovery 1"), START)  # type: ignore[arg-type]
    assert len(cluster.events) == 1


@pytest.mark.parametrize(
    ("about", "notice"),
    [
        (session(uid="session-2"), NOTICE),
        (session(), NOTICE._replace(message="again")),
        (session(), NOTICE._replace(reason="NameConflict")),
    ],
    ids=["another object", "other words", "another reason"],
)
async def test_anything_else_is_another_event(cluster: FakeCluster, about: dict[str, str], notice: Notice) -> None:
    await tell(cluster, session(), NOTICE, START)  # type: ignore[arg-type]
    await tell(cluster, about, notice, START)  # type: ignore[arg-type]
    assert len(cluster.events) == 2


@pytest.mark.parametrize("name", ["a" * 253, "a" * 219 + "-" + "b" * 20, "a" * 219 + "." + "b" * 20])
async def test_the_longest_name_makes_a_name(cluster: FakeCluster, name: str) -> None:
    await tell(cluster, session(name), NOTICE, START)  # type: ignore[arg-type]
    (made,) = cluster.events
    assert len(made) <= 253
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", made)


async def test_a_long_message_is_cut_and_still_tells_events_apart(cluster: FakeCluster) -> None:
    for end in "ab":
        await tell(cluster, session(), NOTICE._replace(message="x" * 5000 + end), START)  # type: ignore[arg-type]
    assert [len(event["message"]) for event in cluster.events.values()] == [TEXT_MOST] * 2


async def test_where_it_is_not_allowed_nobody_suffers(cluster: FakeCluster) -> None:
    cluster.breaks("create_event", ClusterRefused("events is forbidden", status=403))
    await tell(cluster, session(), NOTICE, START)  # type: ignore[arg-type]
    assert cluster.events == {}


async def test_where_it_cannot_be_told_now_it_is_told_again(cluster: FakeCluster) -> None:
    cluster.breaks("create_event")
    with pytest.raises(ClusterUnavailable):
        await tell(cluster, session(), NOTICE, START)  # type: ignore[arg-type]
