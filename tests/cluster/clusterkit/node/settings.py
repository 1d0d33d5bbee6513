"""What a stand-in node is: its size, its images, its times."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """What an image is here: the command that its containers run, before their own args."""

    entrypoint: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


def python(*arguments: str, env: Mapping[str, str] | None = None) -> Image:
    """Return an image whose entrypoint is this interpreter: `python("-m", "berth_worker")`."""
    return Image((sys.executable, *arguments), env or {})


@dataclass(frozen=True)
class Capacity:
    """What the scheduler may give away. Nothing enforces it: processes are not limited."""

    cpu: str = "16"
    memory: str = "64Gi"
    pods: int = 110
    gpus: int = 0
    """nvidia.com/gpu; 0: the node does not have that resource at all."""

    def resources(self) -> dict[str, str]:
        found = {"cpu": self.cpu, "memory": self.memory, "pods": str(self.pods), "ephemeral-storage": "100Gi"}
        return {**found, "nvidia.com/gpu": str(self.gpus)} if self.gpus else found


@dataclass(frozen=True)
class Times:
    """A kubelet's times in seconds, shortened where a test waits for them. Probes keep those of the pod."""

    heartbeat: float = 2.0
    """A quarter of the grace period of our node lifecycle controller (a kubelet: 10 of 50)."""
    crash_first: float = 0.5
    """Pause before the second restart, doubled for each one after it; the first is immediate (a kubelet: 10)."""
    crash_most: float = 5.0
    """A kubelet: 300. A container that has run for twice that starts from the beginning again."""
    notice: float = 0.3
    """From a start until the first probe (a kubelet, which looks once a second, takes 0 to 1): the time most programs
    take to listen, so that their first answer need not be waited for by another period."""
    pull: float = 0.5
    """Between two tries for an image, a volume or a configuration that is not there."""


PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What a container finds: this interpreter's environment first, so that `python` is the one with our packages."""
