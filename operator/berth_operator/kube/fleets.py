"""One look at a fleet: see, plan, act, say what is so.

Everything it goes by is looked up anew each time. What is kept between two looks (when a worker gave its word, how
often a place failed, what load was wanted) costs only time when it is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pydantic import ValidationError

from berth_api.crd import FleetStatus, InferenceFleet, Rollout, seconds
from berth_operator.kube import fleet_status, pods
from berth_operator.kube.cluster import Cluster
from berth_operator.kube.fleet_status import FleetSeen
from berth_operator.kube.hands import Hands
from berth_operator.kube.instances import Clock, Trouble, ended, instance, trouble
from berth_operator.kube.labels import place_of
from berth_operator.kube.notices import Notice, tell
from berth_operator.kube.session_status import FleetWord
from berth_operator.kube.settings import KubeSettings
from berth_operator.kube.sizing import Sizing
from berth_operator.kube.status_writer import StatusWriter
from berth_operator.kube.store import Body, Key, Store
from berth_operator.kube.words import Words
from berth_operator.model import Action, Fleet, FleetKey, Instance, Place, Registration, Seen
from berth_operator.plan import plan
from berth_operator.policy import Policy
from berth_operator.roster import Roster

UNSEEN = FleetWord(exists=True, message="the fleet has not been looked at yet")


class Fleets:
    """`moved(fleet)` hears when what sessions must know of a fleet has changed. `current()` says whether the cluster
    has been seen lately: whoever has not must not tell the gateways about it.
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
        moved: Callable[[FleetKey], None],
    ) -> None:
        times = settings.times
        self._settings = settings
        self._policy = Policy(liveness_s=times.unreachable_s, start_s=times.start_s)
        self._store = store
        self._cluster = cluster
        self._roster = roster
        self._words = words
        self._hands = hands
        self._sizing = sizing
        self._writer = writer
        self._clock = clock
        self._current = current
        self._moved = moved
        self._known: dict[FleetKey, FleetWord] = {}

    def word(self, fleet: FleetKey) -> FleetWord:
        """Return what a session has to know of its fleet, as of the last look."""
        if self._store.get("fleet", Key(*fleet)) is None:
            text = f"there is no InferenceFleet {fleet.name} in namespace {fleet.namespace}"
            return FleetWord(exists=False, message=text)
        return self._known.get(fleet, UNSEEN)

    def keep(self, pods: set[str]) -> None:
        """Forget what was known of all pods but these, by uid."""
        self._words.keep(pods)
        self._hands.ending &= pods

    async def look(self, key: Key) -> float | None:
        """Bring a fleet one step nearer to what is wanted; return in how many seconds to look again."""
        fleet, body = FleetKey(*key), self._store.get("fleet", key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return await self._dissolve(fleet)
        try:
            resource = InferenceFleet.model_validate(body)
        except ValidationError as error:
            await self._refuse(body, error)
            return None
        here = await self._pods(fleet, body)
        await self._words.hear(fleet, here.values())
        now, registered = self._clock(), self._registered(fleet)
        instances = self._instances(here, body, now)
        target = await self._target(fleet, resource, registered, instances, now)
        actions = plan([target], Seen(now, instances, registered, self._hands.restarts), self._policy)
        await self._hands.carry_out(actions, resource, here)
        seen = FleetSeen(
            fleet,
            resource.metadata["generation"],
            target.revision,
            target.replicas,
            instances,
            registered,
            resource.spec.slots,
            self._troubles(fleet, here, instances),
        )
        self._remember(seen)
        await self._writer.write(body, fleet_status.judge(seen, resource.status, now))
        return self._again(seen, actions, resource)

    async def _dissolve(self, fleet: FleetKey) -> float | None:
        """Nobody wants it: its pods go with their owner; until then no turn begins there."""
        self._known.pop(fleet, None)
        self._sizing.forget(fleet)
        here = await self._pods(fleet, None)
        now, registered = self._clock(), self._registered(fleet)
        instances = self._instances(here, None, now)
        await self._hands.carry_out(plan([], Seen(now, instances, registered, {}), self._policy), None, here)
        return self._settings.times.poll_s if instances or registered else None

    # What is seen ---------------------------------------------------------------------------------------------------

    def _registered(self, fleet: FleetKey) -> tuple[Registration, ...] | None:
        """Return its workers as the gateways know them; None where nobody can say, or what we see of pods is old."""
        return self._roster.of(fleet) if self._current() else None

    async def _pods(self, fleet: FleetKey, body: Body | None) -> dict[Place, Body]:
        """Return the fleet's pods by place, and bury those that are over."""
        here = {}
        for pod in list(self._store.all("pod", fleet.namespace)):
            place = place_of(pod)
            if place is None or place.fleet != fleet:
                continue
            if ended(pod):
                await self._bury(place, pod, body)
            else:
                here[place] = pod
        return here

    async def _bury(self, place: Place, pod: Body, body: Body | None) -> None:
        status = pod["status"]
        if body is not None and "deletionTimestamp" not in pod["metadata"]:
            why = f"{status.get('reason') or status['phase']}: {status.get('message', 'it ended')}"
            message = f"pod {place} ({pod['metadata']['uid']}) is replaced. {why}"
            await tell(self._cluster, body, Notice("Warning", "WorkerFailed", message), self._clock())
        await self._hands.bury(place, pod)

    def _instances(self, here: dict[Place, Body], body: Body | None, now: float) -> tuple[Instance, ...]:
        owner = body["metadata"]["uid"] if body is not None else None
        clock = Clock(now, self._settings.times.gone_s)
        found = []
        for pod in here.values():
            node = self._store.get("node", Key("", pod["spec"].get("nodeName", "")))
            each = instance(pod, node, self._words.heard, owner, clock)
            if each.ready:
                self._hands.restarts.pop(each.place, None)
            found.append(replace(each, stopping=True) if each.uid in self._hands.ending else each)
        return tuple(found)

    async def _target(
        self,
        key: FleetKey,
        resource: InferenceFleet,
        registered: tuple[Registration, ...] | None,
        instances: tuple[Instance, ...],
        now: float,
    ) -> Fleet:
        spec = resource.spec
        rollout = spec.rollout or (Rollout(max_unavailable=1) if pods.wants_devices(spec) else Rollout(max_surge=1))
        live = sum(not each.stopping for each in instances)
        return Fleet(
            key,
            await self._sizing.desired(key, spec, registered, live, now),
            pods.revision(resource, self._settings.pods, self._settings.times.start_s),
            max_surge=rollout.max_surge,
            max_unavailable=rollout.max_unavailable,
            drain_s=seconds(spec.drain_deadline),
        )

    def _troubles(self, fleet: FleetKey, here: dict[Place, Body], instances: tuple[Instance, ...]) -> list[Trouble]:
        live = {each.place: each.uid for each in instances if not each.stopping}
        refused = [self._words.refused[uid] for uid in live.values() if uid in self._words.refused]
        unfilled = [why for place, why in self._hands.refused.items() if place.fleet == fleet and place not in live]
        return [*refused, *unfilled, *filter(None, (trouble(here[place]) for place in live))]

    # What is said ---------------------------------------------------------------------------------------------------

    def _remember(self, seen: FleetSeen) -> None:
        if seen.registered is None and seen.key in self._known:
            return  # What was known of the fleet is all that anybody knows.
        word, before = fleet_status.word(seen), self._known.get(seen.key, UNSEEN)
        self._known[seen.key] = word
        if before != word and 0 in (before.usable, word.usable):
            self._moved(seen.key)

    async def _refuse(self, body: Body, error: ValidationError) -> None:
        """A spec that makes no sense, which the API server should not have taken: nothing is changed about its pods."""
        first = error.errors()[0]
        message = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        before = FleetStatus.model_validate(body.get("status") or {})
        status = fleet_status.invalid(body["metadata"]["generation"], message, before, self._clock())
        await self._writer.write(body, status)

    def _again(self, seen: FleetSeen, actions: list[Action], resource: InferenceFleet) -> float | None:
        """What changes by time alone has to be looked at again: deadlines, pauses, load."""
        settled = len(fleet_status.serving(seen)) == len(seen.instances) == seen.desired
        if actions or not settled or resource.spec.autoscaling is not None:
            return self._settings.times.poll_s
        return None
