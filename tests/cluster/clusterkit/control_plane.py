"""etcd, API server, controller manager and scheduler as processes of this machine, on free ports, in one folder."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import ssl
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from clusterkit import commands, kubeconfig
from clusterkit.commands import Places, Times
from clusterkit.processes import Child, free_port

READY_S = 120.0
"""A loaded machine may take many times the seconds that a start takes."""
_ATTEMPTS = 3
"""Somebody else may take a port between our choice and the start."""
_POLL_S = 0.05


class StartFailed(RuntimeError):
    """The control plane did not come up; the message ends with the logs of what failed."""


class ControlPlane:
    """Started and stopped by `with`. Its parts are children by name; each may be killed and started again."""

    def __init__(self, folder: Path, programs: dict[str, Path], times: Times | None = None) -> None:
        self.folder = folder
        self.token = secrets.token_urlsafe(16)
        self.children: dict[str, Child] = {}
        self._programs = programs
        self._times = times or Times()
        self._places: Places | None = None

    def __enter__(self) -> Self:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._start()
            except StartFailed as error:
                self.stop()
                if attempt == _ATTEMPTS or "address already in use" not in str(error):
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return self
        raise AssertionError

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def places(self) -> Places:
        assert self._places is not None
        return self._places

    @property
    def url(self) -> str:
        return self.places.url

    def kill(self, name: str) -> None:
        """SIGKILL one part."""
        self.children[name].kill()

    def start(self, name: str) -> None:
        """Start one part again, where it was; the API server's readiness is waited for."""
        child = self.children[name]
        child.start()
        if name == "kube-apiserver":
            self._wait(self._api_ready, child)

    def stop(self) -> None:
        """End all parts and drop etcd's data; the logs stay."""
        for name in ("kube-scheduler", "kube-controller-manager"):
            if name in self.children:
                self.children[name].kill()  # nothing of theirs needs an orderly end
        for child in reversed(self.children.values()):
            child.kill()
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    def last_words(self) -> str:
        """Return the end of every part's log."""
        return "\n".join(child.last_words() for child in self.children.values())

    def ended(self) -> list[str]:
        """Return the parts that should run and do not."""
        return [name for name, child in self.children.items() if not child.alive]

    def _start(self) -> None:
        self._places = places = Places(self.folder, free_port(), free_port(), free_port())
        self._prepare(places)
        programs = self._programs
        made = {
            "etcd": commands.etcd(programs["etcd"], places),
            "kube-apiserver": commands.apiserver(programs["kube-apiserver"], places),
            "kube-controller-manager": commands.controller_manager(
                programs["kube-controller-manager"], places, self._times
            ),
            "kube-scheduler": commands.scheduler(programs["kube-scheduler"], places),
        }
        self.children = {name: Child(name, command, self.folder / f"{name}.log") for name, command in made.items()}
        # The API server waits for etcd by itself; the other two give up on an API server that is not there yet.
        self.children["etcd"].start()
        self.children["kube-apiserver"].start()
        self._wait(self._api_ready, self.children["kube-apiserver"])
        self.children["kube-controller-manager"].start()
        self.children["kube-scheduler"].start()
        self._wait(self._accounts_made, self.children["kube-controller-manager"])

    def _prepare(self, places: Places) -> None:
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)
        places.pki.mkdir(parents=True, exist_ok=True)
        places.account_key.write_text(_private_key())
        places.tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        places.audit_policy.write_text(commands.AUDIT_POLICY)
        kubeconfig.write(places.kubeconfig, server=places.url, ca=places.ca, token=self.token)

    def _wait(self, ready: Callable[[], bool], child: Child) -> None:
        deadline = time.monotonic() + READY_S
        while not ready():
            if not child.alive or not self.children["etcd"].alive:
                raise StartFailed(f"{child.name} did not come up\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{child.name} is not ready after {READY_S:g} s\n{self.last_words()}")
            time.sleep(_POLL_S)

    def _api_ready(self) -> bool:
        return self._get("/readyz") is not None

    def _accounts_made(self) -> bool:
        """Without its service account a namespace takes no pods: the controller manager's first visible deed."""
        found = self._get("/api/v1/namespaces/default/serviceaccounts/default")
        return found is not None and json.loads(found)["metadata"]["name"] == "default"

    def _get(self, path: str) -> bytes | None:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with suppress(OSError):  # refused, not yet ready, not found; the certificate not yet made
            trust = ssl.create_default_context(cafile=str(self.places.ca))
            with urllib.request.urlopen(request, timeout=5, context=trust) as answer:
                content: bytes = answer.read()
                return content
        return None


def _private_key() -> str:
    """Return a P-256 private key in PEM (RFC 5915): any scalar below the order will do, the public part is implied."""
    scalar = b"\x00" + secrets.token_bytes(31)
    der = b"\x30\x31\x02\x01\x01\x04\x20" + scalar + b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{body}-----END EC PRIVATE KEY-----\n"
