"""The workers' own words, asked for through a gateway: only where that goes through will turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from berth_api.admin import WorkerFound
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable
from berth_operator.kube.instances import Heard, Trouble, is_ending, is_ready, start_of, url_of
from berth_operator.kube.store import Body
from berth_operator.model import FleetKey, Ready, Registration
from berth_operator.roster import Roster

log = structlog.get_logger("berth_operator.words")


class Words:
    """`heard` has the word of each pod (by uid) that has given one; `refused` why the gateways would not have it.

    An operator that has just come hears everybody anew. Who cannot be asked just then is taken at the word that the
    gateways have of it: the pod is ready, so the worker that was registered from it serves, as far as one can know.
    """

    def __init__(self, admin: AdminClient, roster: Roster) -> None:
        self.heard: dict[str, Heard] = {}
        self.refused: dict[str, Trouble] = {}
        self._asked: set[str] = set()
        """Pods whose word comes from themselves, at this start or an earlier one."""
        self._admin = admin
        self._roster = roster

    def keep(self, pods: set[str]) -> None:
        """Forget the words of all pods but these, by uid."""
        self.heard = {uid: heard for uid, heard in self.heard.items() if uid in pods}
        self._asked &= pods
        self.refused = {uid: why for uid, why in self.refused.items() if uid in pods}

    async def hear(self, fleet: FleetKey, here: Iterable[Body]) -> None:
        """Ask every worker that is ready, and was not at its present start before."""
        registered = self._roster.of(fleet)
        if registered is not None:
            await asyncio.gather(*(self._ask(fleet, pod, registered) for pod in here if is_ready(pod)))

    async def _ask(self, fleet: FleetKey, pod: Body, registered: tuple[Registration, ...]) -> None:
        meta, url, start = pod["metadata"], url_of(pod), start_of(pod)
        if url is None or start is None or (meta["uid"] in self._asked and self.heard[meta["uid"]].start == start):
            return
        known = [worker for worker in registered if worker.id.startswith(f"{meta['uid']}.")]
        found = WorkerFound(
            uid=meta["uid"],
            namespace=fleet.namespace,
            fleet=fleet.name,
            url=url,
            # What was ordered before, by another operator or of another start, is not to be taken back by this.
            cordoned=is_ending(pod) or any(worker.cordoned for worker in known),
        )
        try:
            view = await self._admin.register_worker(found)
        except AdminRefused as error:
            self.refused[meta["uid"]] = Trouble("Refused", f"the gateways refuse {meta['name']}: {error}")
        except AdminUnavailable:
            # It is asked again at the next look.
            if meta["uid"] not in self._asked and len(known) == 1 and known[0].url == url:
                self.heard[meta["uid"]] = Heard(start, Ready(known[0].id, url))
        else:
            self.refused.pop(meta["uid"], None)
            self._asked.add(meta["uid"])
            self.heard[meta["uid"]] = Heard(start, Ready(view.id, view.url))
            log.info("worker registered", fleet=str(fleet), pod=meta["name"], worker=view.id)
