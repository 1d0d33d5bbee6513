"""Settings of the operator on Kubernetes, each with its unit and the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Times:
    """How often, how soon, how long. All in seconds."""

    poll_s: float = 1.0
    """Between two questions to the gateways: a dead worker's sessions should not wait for the operator."""
    resync_s: float = 30.0
    """Between two complete lists of everything: the net under missed events."""
    absent_s: float = 60.0
    """Two complete lists so far apart must lack a resource before its session is closed: histories are not lost to one
    list that came back short."""
    session_status_s: float = 10.0
    """Between two writes to one session's status: sessions come by the thousand, etcd is not for what moves."""
    fleet_status_s: float = 1.0
    """Between two writes to one fleet's status: people watch it, but two operators that differ would never end."""
    history_s: float = 300.0
    """Between two writes that only tell that the history has grown, and between two lists that show it."""
    unreachable_s: float = 60.0
    """A worker is replaced that has not been ready, or whose node has been silent, for so long."""
    start_s: float = 900.0
    """A worker is replaced that is not ready so long after it was scheduled: a large checkpoint takes minutes."""
    gone_s: float = 30.0
    """A pod of a silent node that outlives its grace period by so long is given up: nobody will confirm its end."""
    admin_s: float = 5.0
    """For one answer of a gateway."""
    api_s: float = 15.0
    """For one answer of the API server."""

    @property
    def late_s(self) -> float:
        """A watch that owes a change for so long is dead; what no list has shown for so long is not relied on."""
        return 3 * self.resync_s


@dataclass(frozen=True)
class PodSettings:
    """What all workers' pods have in common."""

    image: str
    """Of workers whose fleet names none."""
    token_secret: str
    """The Secret, in the fleet's namespace, whose key `token` workers ask of their callers."""


@dataclass(frozen=True)
class KubeSettings:
    """Everything the operator is told at its start."""

    gateways: tuple[str, ...]
    """Base URLs of admin ports; a Service in front of all gateways is one."""
    admin_token: str = field(repr=False)
    pods: PodSettings
    namespaces: tuple[str, ...] = ()
    """Where it works; () is everywhere."""
    kubeconfig: str | None = None
    """None: the pod's service account, else the user's own."""
    host: str = "127.0.0.1"
    port: int = 8082
    """Of the probes and /metrics."""
    times: Times = field(default_factory=Times)

    def serves(self, namespace: str) -> bool:
        """Whether the operator has anything to do with a namespace."""
        return not self.namespaces or namespace in self.namespaces
