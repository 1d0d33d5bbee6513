"""What each program of the control plane is started with.

Pure: folders and ports in, command lines out. Times are shorter than a cluster's, where a test would wait for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = (
    "clusterrole-aggregation",
    "cronjob",
    "daemonset",
    "deployment",
    "disruption",
    "garbage-collector",
    "job",
    "namespace",
    "node-lifecycle",
    "persistentvolume-binder",
    "persistentvolume-protection",
    "persistentvolumeclaim-protection",
    "pod-garbage-collector",
    "replicaset",
    "resourcequota",
    "root-ca-certificate-publisher",
    "serviceaccount",
    "statefulset",
    "taint-eviction",
    "ttl-after-finished",
)
"""All that act on what a test makes. Endpoints are left out: addresses of 127.0.0.0/8, which stand-in pods have, are
refused there."""

AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""


@dataclass(frozen=True)
class Times:
    """When the node lifecycle controller acts, in seconds."""

    node_grace: int = 8
    """Silence after which a node counts as unreachable: four of the stand-in node's heartbeats (a cluster's: 50)."""
    node_monitor: int = 1


@dataclass(frozen=True)
class Places:
    """Where a control plane's files are and on which ports it listens."""

    folder: Path
    etcd_port: int
    etcd_peer_port: int
    port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def etcd_url(self) -> str:
        return f"http://127.0.0.1:{self.etcd_port}"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def ca(self) -> Path:
        """The server's certificate and the authority it made for itself at its first start."""
        return self.pki / "apiserver.crt"

    @property
    def account_key(self) -> Path:
        """Signs and checks the tokens of service accounts."""
        return self.pki / "accounts.key"

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.csv"

    @property
    def audit_policy(self) -> Path:
        return self.folder / "audit-policy.yaml"

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "admin.kubeconfig"


def etcd(program: Path, places: Places) -> list[str]:
    peer = f"http://127.0.0.1:{places.etcd_peer_port}"
    return [
        str(program),
        f"--data-dir={places.folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={places.etcd_url}",
        f"--advertise-client-urls={places.etcd_url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]


def apiserver(program: Path, places: Places) -> list[str]:
    return [
        str(program),
        f"--etcd-servers={places.etcd_url}",
        f"--secure-port={places.port}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={places.pki}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={places.account_key}",
        f"--service-account-key-file={places.account_key}",
        "--authorization-mode=RBAC",
        "--allow-privileged",  # as clusters do: what is forbidden is forbidden by the namespace
        f"--token-auth-file={places.tokens}",
        "--endpoint-reconciler-type=none",
        f"--audit-policy-file={places.audit_policy}",
        f"--audit-log-path={places.audit_log}",
        # Into one file, each line as its request ends: a buffer would keep what a test wants to count.
        "--audit-log-mode=blocking",
        "--audit-log-maxsize=4096",
    ]


def controller_manager(program: Path, places: Places, times: Times) -> list[str]:
    return [
        str(program),
        *_client_of(places),
        f"--controllers={','.join(f'{name}-controller' for name in CONTROLLERS)}",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={places.account_key}",
        f"--root-ca-file={places.ca}",
        f"--node-monitor-grace-period={times.node_grace}s",
        f"--node-monitor-period={times.node_monitor}s",
        f"--node-startup-grace-period={times.node_grace}s",
        # A lost node's pods are marked at once: by default one node in 10 s.
        "--node-eviction-rate=10",
    ]


def scheduler(program: Path, places: Places) -> list[str]:
    return [str(program), *_client_of(places)]


def _client_of(places: Places) -> list[str]:
    """No port of its own: whether these two serve is seen from what they do."""
    config = str(places.kubeconfig)
    return [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
        "--secure-port=0",
    ]
