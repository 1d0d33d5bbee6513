"""A cluster as tests see it: our own control plane, or an existing one of $KUBECONFIG."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clusterkit.api import Api, ApiError
from clusterkit.audit import Audit
from clusterkit.control_plane import ControlPlane
from clusterkit.kubectl import Kubectl
from clusterkit.processes import spawn
from clusterkit.waiting import until


@dataclass(frozen=True)
class Cluster:
    """Where it is and how to speak to it as its administrator. `plane` and `audit` are None on an existing one."""

    url: str
    kubeconfig: Path
    kubectl: Kubectl
    ca: Path | None = None
    token: str | None = None
    plane: ControlPlane | None = None
    audit: Audit | None = None

    def api(self) -> Api:
        """Return a connection of its own, for `async with`."""
        return Api(self.url, token=self.token, ca=self.ca)

    def last_words(self) -> str:
        return "" if self.plane is None else self.plane.last_words()


@contextmanager
def own(folder: Path, programs: dict[str, Path]) -> Iterator[Cluster]:
    """Start a control plane below `folder`."""
    with ControlPlane(folder, programs) as plane:
        config = plane.places.kubeconfig
        yield Cluster(
            plane.url,
            config,
            Kubectl(programs["kubectl"], config),
            ca=plane.places.ca,
            token=plane.token,
            plane=plane,
            audit=Audit(plane.places.audit_log),
        )


@contextmanager
def existing(kubectl: Path) -> Iterator[Cluster]:
    """Use the cluster of $KUBECONFIG. `kubectl proxy` speaks for us, for it knows every way to log in."""
    config = Path(os.environ.get("KUBECONFIG", Path.home() / ".kube/config"))
    if not config.is_file():
        raise RuntimeError(f"--cluster existing: there is no {config}; set KUBECONFIG to one file")
    command = [str(kubectl), f"--kubeconfig={config}", "proxy", "--port=0"]
    with spawn(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            said = str(proxy.stdout.readline())
            if "127.0.0.1:" not in said:
                raise RuntimeError(f"kubectl proxy did not come up: {said}")
            yield Cluster(f"http://{said.rsplit(maxsplit=1)[-1]}", config, Kubectl(kubectl, config))
        finally:
            proxy.terminate()


async def make_namespace(api: Api, *, restricted: bool = True, prefix: str = "test") -> str:
    """Make a fresh namespace in which pods can be made at once; `restricted` by the pod security standard of that name.

    The name is unique, so that the end of an old one need not be waited for.
    """
    name = f"{prefix}-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
    await api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})

    async def usable() -> bool:
        account = await api.find(f"/api/v1/namespaces/{name}/serviceaccounts/default")
        authority = await api.find(f"/api/v1/namespaces/{name}/configmaps/kube-root-ca.crt")
        return account is not None and authority is not None

    await until(usable, f"the service account of {name}")
    return name


async def drop_namespace(api: Api, name: str) -> None:
    """Have a namespace deleted; its content goes after it."""
    try:
        await api.delete(f"/api/v1/namespaces/{name}")
    except ApiError as error:
        if error.status != 403:  # it is being deleted already
            raise
