"""One look at a fleet: see, plan, act, say what is so.

Everything it goes by is looked up anew each time. What is kept between two looks (when a worker gave its word, how
often a place failed, what load was wanted) costs only time when it is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from pydantic import ValidationError

from berth_api.crd import FleetStatus, InferenceFleet, Rollout, seconds
from berth_operator.kube import fleet_status, pods
from berth_operator.kube.cluster import Cluster
from berth_operator.kube.fleet_status import FleetSeen
from berth_operator.kube.hands import Hands
from berth_operator.kube.instances import is_ending
from berth_operator.kube.notices import Notice, tell
from berth_operator.kube.resources import explain, read
from berth_operator.kube.session_status import FleetWord
from berth_operator.kube.settings import KubeSettings
from berth_operator.kube.sight import Eyes, Sight
from berth_operator.kube.sizing import Sizing
from berth_operator.kube.status_writer import StatusWriter
from berth_operator.kube.store import Body, Key, Store
from berth_operator.kube.words import Words
from berth_operator.model import Action, Drop, Fleet, FleetKey, Instance, Kill, Place, Seen, Start, Stop
from berth_operator.plan import plan
from berth_operator.policy import Policy
from berth_operator.roster import Roster

UNKNOWN = FleetWord(exists=True)
FRESH_S = 2.0
"""What was seen longer ago than this is seen anew before it is acted on: this process may have slept meanwhile, or the
answer been on its way for long. Each time it may take twice as long, so that a slow API server holds nothing up."""


class Decision(NamedTuple):
    """What a fleet is to be, and what is to be done for it, by what was seen. No target: nobody wants it."""

    sight: Sight
    target: Fleet | None
    actions: list[Action]


class Seeing(NamedTuple):
    """Since when what is judged has been looked up for this very decision, and for how long that is good."""

    since: float
    fresh_s: float


class Fleets:
    """`moved(fleet)` hears when what sessions must know of a fleet has changed. `see(namespace)` sees what is judged
    there as it is now, not as the watch has told so far.
    """

    def __init__(
        self,
        settings: KubeSettings,
        store: Store,
        cluster: Cluster,
        *,
        roster: Roster,
        words: Words,
        hands: Hands,
        sizing: Sizing,
        writer: StatusWriter,
        clock: Callable[[], float],
        current: Callable[[], bool],
        see: Callable[[str], Awaitable[None]],
        moved: Callable[[FleetKey], None],
    ) -> None:
        times = settings.times
        self._settings = settings
        self._policy = Policy(liveness_s=times.unreachable_s, start_s=times.start_s)
        self._store = store
        self._cluster = cluster
        self._words = words
        self._hands = hands
        self._sizing = sizing
        self._writer = writer
        self._clock = clock
        self._see = see
        self._moved = moved
        self._eyes = Eyes(
            store,
            roster=roster,
            words=words,
            hands=hands,
            gone_s=times.gone_s,
            current=current,
            clock=clock,
        )
        self._known: dict[FleetKey, FleetWord] = {}

    def word(self, fleet: FleetKey) -> FleetWord | None:
        """Return what a session has to know of its fleet, as of the last look; None before the first."""
        if self._store.get("fleet", Key(*fleet)) is None:
            text = f"there is no InferenceFleet {fleet.name} in namespace {fleet.namespace}"
            return FleetWord(exists=False, message=text)
        return self._known.get(fleet)

    def keep(self, pods: set[str]) -> None:
        """Forget what was known of all pods but these, by uid."""
        self._words.keep(pods)
        self._hands.ending &= pods

    async def look(self, key: Key, seeing: Seeing | None = None) -> float | None:
        """Bring a fleet one step nearer to what is wanted; return in how many seconds to look again.

        The watch may lag, and this process may have slept, while the gateways tell what is so now: whoever compares
        the two sees workers without pods, or misses a pod that nobody wants any more. What is made or taken away is
        decided at a second look, by what was looked up for it.
        """
        fleet, body = FleetKey(*key), self._store.get("fleet", key)
        if body is None or is_ending(body):
            return await self._dissolve(fleet, seeing)
        try:
            resource = read(InferenceFleet, body)
        except ValidationError as error:
            return await self._refuse(fleet, body, error)
        for place, pod in self._eyes.over(fleet).items():
            await self._bury(place, pod, body)
        sight, target, actions = await self._plan(fleet, resource)
        assert target is not None
        if _weighs(actions) and not self._is_fresh(seeing):
            return await self.look(key, await self._seen(fleet, seeing))
        killed = {action.place for action in actions if isinstance(action, Kill)}
        await asyncio.gather(*(self._tell_of_kill(each, body) for each in sight.instances if each.place in killed))
        await self._hands.carry_out(actions, resource, sight.pods)
        seen = FleetSeen(
            fleet,
            resource.metadata["generation"],
            target.revision,
            target.replicas,
            sight.instances,
            sight.registered,
            resource.spec.slots,
            self._eyes.troubles(fleet, sight),
        )
        self._remember(seen)
        early = await self._say(body, fleet_status.judge(seen, resource.status, sight.now))
        return self._again(seen, actions, resource, early)

    async def _dissolve(self, fleet: FleetKey, seeing: Seeing | None) -> float | None:
        """Nobody wants it: its pods go with their owner; until then no turn begins there."""
        self._known.pop(fleet, None)
        self._sizing.forget(fleet)
        self._hands.settle(Fleet(fleet, 0), ())
        for place, pod in self._eyes.over(fleet).items():
            await self._hands.bury(place, pod)
        sight, _, actions = await self._plan(fleet, None)
        if _weighs(actions) and not self._is_fresh(seeing):
            return await self.look(Key(*fleet), await self._seen(fleet, seeing))
        await self._hands.carry_out(actions, None, sight.pods)
        return self._settings.times.poll_s if actions or sight.registered else None

    def _is_fresh(self, seeing: Seeing | None) -> bool:
        return seeing is not None and self._clock() - seeing.since <= seeing.fresh_s

    async def _seen(self, fleet: FleetKey, before: Seeing | None) -> Seeing:
        """See what is judged as it is now; it is good from before it was asked for."""
        since = self._clock()
        await self._see(fleet.namespace)
        return Seeing(since, FRESH_S if before is None else 2 * before.fresh_s)

    async def _plan(self, fleet: FleetKey, resource: InferenceFleet | None) -> Decision:
        sight = await self._eyes.look(fleet, resource.metadata["uid"] if resource else None)
        target = await self._target(fleet, resource, sight) if resource else None
        if target is not None:
            self._hands.settle(target, sight.instances)
        seen = Seen(sight.now, sight.instances, sight.registered, self._hands.restarts)
        return Decision(sight, target, plan([target] if target else [], seen, self._policy))

    async def _target(self, key: FleetKey, resource: InferenceFleet, sight: Sight) -> Fleet:
        spec = resource.spec
        rollout = spec.rollout or (Rollout(max_unavailable=1) if pods.wants_devices(spec) else Rollout(max_surge=1))
        return Fleet(
            key,
            await self._sizing.desired(key, spec, sight.registered, len(sight.live), sight.now),
            pods.revision(resource, self._settings.pods, self._settings.times.start_s),
            max_surge=rollout.max_surge,
            max_unavailable=rollout.max_unavailable,
            drain_s=seconds(spec.drain_deadline),
        )

    async def _bury(self, place: Place, pod: Body, body: Body) -> None:
        """Make room where a pod is over. One that was told to end, by whomever, has not failed."""
        if not is_ending(pod) and pod["metadata"]["uid"] not in self._hands.ending:
            status = pod["status"]
            why = f"{status.get('reason') or status['phase']}: {status.get('message', 'it ended')}"
            await self._tell_of_failure(place, pod["metadata"]["uid"], why, body)
        await self._hands.bury(place, pod)

    async def _tell_of_kill(self, instance: Instance, body: Body) -> None:
        limits = self._policy
        if instance.unreachable:
            why = f"Its node has been silent for {limits.liveness_s:g} s"
        elif instance.ready is None:
            why = f"It was not ready after {limits.start_s:g} s"
        else:
            why = f"It has not answered for {limits.liveness_s:g} s"
        await self._tell_of_failure(instance.place, instance.uid, why, body)

    async def _tell_of_failure(self, place: Place, uid: str, why: str, body: Body) -> None:
        message = f"pod {place} ({uid}) is replaced. {why}"
        await tell(self._cluster, body, Notice("Warning", "WorkerFailed", message), self._clock())

    # What is said ---------------------------------------------------------------------------------------------------

    def _remember(self, seen: FleetSeen) -> None:
        if seen.registered is None:
            return  # What was known of the fleet, if anything, is all that anybody knows.
        self._learn(seen.key, fleet_status.word(seen))

    def _learn(self, fleet: FleetKey, word: FleetWord) -> None:
        before = self._known.get(fleet)
        self._known[fleet] = word
        if before is None or (before != word and 0 in (before.usable, word.usable)):
            self._moved(fleet)

    async def _say(self, body: Body, status: FleetStatus) -> float | None:
        """Write its status; return in how many seconds to look again where it is too early for that."""
        early = self._writer.early_s(body, status)
        if early > 0:
            return early
        await self._writer.write(body, status)
        return None

    async def _refuse(self, fleet: FleetKey, body: Body, error: ValidationError) -> float | None:
        """A spec that makes no sense, which the API server should not have taken: nothing is changed about its pods."""
        message = explain(error)
        usable = self._known.get(fleet, UNKNOWN).usable
        self._learn(fleet, FleetWord(exists=True, usable=usable, reason="InvalidSpec", message=message))
        status = fleet_status.invalid(body["metadata"]["generation"], message, _status(body), self._clock())
        return await self._say(body, status)

    def _again(
        self, seen: FleetSeen, actions: list[Action], resource: InferenceFleet, early: float | None
    ) -> float | None:
        """What changes by time alone has to be looked at again: deadlines, pauses, load."""
        settled = len(fleet_status.serving(seen)) == len(seen.instances) == seen.desired
        if actions or not settled or resource.spec.autoscaling is not None:
            return self._settings.times.poll_s
        return early


def _status(body: Body) -> FleetStatus | None:
    """Return what was said of a fleet whose spec makes no sense; nor may that."""
    try:
        return FleetStatus.model_validate(body.get("status") or {})
    except ValidationError:
        return None


def _weighs(actions: Iterable[Action]) -> bool:
    """Whether anything is to be made or taken away."""
    return any(isinstance(action, Start | Stop | Kill | Drop) for action in actions)
