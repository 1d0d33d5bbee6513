"""The workers' own words, asked for through a gateway: only where that goes through will turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from berth_api.admin import WorkerFound
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable
from berth_operator.kube.instances import Heard, Trouble, is_ready, start_of, url_of
from berth_operator.kube.store import Body
from berth_operator.model import FleetKey, Ready
from berth_operator.roster import Roster

log = structlog.get_logger("berth_operator.words")


class Words:
    """`heard` has the word of each pod (by uid) that has given one; `refused` why the gateways would not have it."""

    def __init__(self, admin: AdminClient, roster: Roster) -> None:
        self.heard: dict[str, Heard] = {}
        self.refused: dict[str, Trouble] = {}
        self._admin = admin
        self._roster = roster

    def keep(self, pods: set[str]) -> None:
        """Forget the words of all pods but these, by uid."""
        self.heard = {uid: heard for uid, heard in self.heard.items() if uid in pods}
        self.refused = {uid: why for uid, why in self.refused.items() if uid in pods}

    async def hear(self, fleet: FleetKey, here: Iterable[Body]) -> None:
        """Ask every worker that is ready, and was not at its present start before."""
        await asyncio.gather(*(self._ask(fleet, pod) for pod in here if is_ready(pod)))

    async def _ask(self, fleet: FleetKey, pod: Body) -> None:
        meta, url, start = pod["metadata"], url_of(pod), start_of(pod)
        heard = self.heard.get(meta["uid"])
        if url is None or start is None or (heard is not None and heard.start == start):
            return
        found = WorkerFound(
            uid=meta["uid"],
            namespace=fleet.namespace,
            fleet=fleet.name,
            url=url,
            cordoned=self._is_cordoned(fleet, meta["uid"]),
        )
        try:
            view = await self._admin.register_worker(found)
        except AdminRefused as error:
            self.refused[meta["uid"]] = Trouble("Refused", f"the gateways refuse {meta['name']}: {error}")
        except AdminUnavailable:
            return  # It has not been heard at the next look either.
        else:
            self.refused.pop(meta["uid"], None)
            self.heard[meta["uid"]] = Heard(start, Ready(view.id, view.url))
            log.info("worker registered", fleet=str(fleet), pod=meta["name"], worker=view.id)

    def _is_cordoned(self, fleet: FleetKey, uid: str) -> bool:
        """An operator that has just started has heard nobody, and must not take back what the last one ordered."""
        return any(worker.cordoned for worker in self._roster.of(fleet) or () if worker.id.startswith(f"{uid}."))
