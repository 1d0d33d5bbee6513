"""The programs of a control plane: taken from KUBEBUILDER_ASSETS or the cache, else built from their Go modules.

`tests/cluster/go.mod` pins them, go.sum their content. A cold build takes many minutes and happens once a version: what
is built stays in ~/.cache/berth/cluster/<version>/, or below the folder that BERTH_CLUSTER_CACHE names.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from clusterkit.processes import kill_group, spawn

GO_FOLDER = Path(__file__).parents[1]
"""Holds go.mod, and no Go."""
PREFLIGHT = GO_FOLDER.parents[1] / ".ci/preflight-go"

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
HEARTBEAT_S = 60
"""A line so often while Go builds: people, and CI systems, take silence for a hang."""

Say = Callable[[str], None]


class BuildFailed(RuntimeError):
    """The programs could not be had; the message says what is missing or what Go said."""


def versions() -> tuple[str, str]:
    """Return Kubernetes' and etcd's versions, as go.mod pins them: ("v1.34.4", "v3.6.4")."""
    text = (GO_FOLDER / "go.mod").read_text()
    kubernetes = re.search(r"^\s+k8s\.io/kubernetes (v\S+)", text, re.MULTILINE)
    etcd = re.search(r"^\s+go\.etcd\.io/etcd/server/v3 (v\S+)", text, re.MULTILINE)
    if kubernetes is None or etcd is None:
        raise BuildFailed(f"{GO_FOLDER / 'go.mod'} pins no Kubernetes or no etcd")
    return kubernetes[1], etcd[1]


def cache() -> Path:
    """Return the folder of this version's programs."""
    root = os.environ.get("BERTH_CLUSTER_CACHE")
    kubernetes, etcd = versions()
    return (Path(root) if root else Path.home() / ".cache/berth/cluster") / f"{kubernetes}-etcd-{etcd}"


def find() -> dict[str, Path]:
    """Return the programs that are there, by name."""
    folders = [cache()]
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        folders.insert(0, Path(assets))
    found = {}
    for name in PACKAGES:
        path = next((folder / name for folder in folders if os.access(folder / name, os.X_OK)), None)
        if path is not None:
            found[name] = path
    return found


def ensure(say: Say, names: Iterable[str] = PACKAGES) -> dict[str, Path]:
    """Return all programs there are once those of `names` are. `say` gets a line for every step. Raises BuildFailed."""
    wanted = set(names)
    if wanted <= find().keys():
        return find()
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{folder.name}.lock"), say):
        if missing := [name for name in PACKAGES if name in wanted - find().keys()]:  # others may have built them
            _build(missing, folder, say)
    return find()


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("control plane: another run is building it, waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(names: list[str], folder: Path, say: Say) -> None:
    go, env = find_go(), {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    kubernetes, etcd = versions()
    say(
        f"control plane: building {', '.join(names)} (Kubernetes {kubernetes}, etcd {etcd}) from the modules of "
        f"{GO_FOLDER / 'go.mod'} into {folder}; the first time this takes ten minutes to an hour, and 4 GB of disk"
    )
    took = _go([go, "mod", "download"], env, "downloading modules", say)
    say(f"control plane: modules downloaded in {took:.0f} s")
    # Beside the target, so that a finished program appears there by a rename: whole or not at all.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as made:
        for number, name in enumerate(names, 1):
            target = Path(made) / name
            flags = f"-s -w {_stamp(kubernetes)}"
            command = [go, "build", "-trimpath", "-ldflags", flags, "-o", str(target), PACKAGES[name]]
            took = _go(command, env, f"building {name}", say)
            target.replace(folder / name)
            say(f"control plane: {name} built in {took:.0f} s ({number} of {len(names)})")


def _stamp(kubernetes: str) -> str:
    """Return the linker's flags that tell the programs their version: unstamped, they take themselves for v0.0.0."""
    major, minor, _ = kubernetes.removeprefix("v").split(".")
    facts = {"gitVersion": kubernetes, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in facts.items())


def find_go() -> str:
    """Return the Go command. Raises BuildFailed with what `.ci/preflight-go` finds missing."""
    checked = subprocess.run(["bash", str(PREFLIGHT)], capture_output=True, text=True, check=False)
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if checked.returncode or go is None:
        raise BuildFailed(f"tests/cluster builds a Kubernetes control plane, and cannot:\n{checked.stderr.strip()}")
    return go


def _go(command: list[str], env: Mapping[str, str], what: str, say: Say) -> float:
    """Run Go to its end and return the seconds it took. Raises BuildFailed with its last words."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = spawn(command, cwd=GO_FOLDER, env=env, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(HEARTBEAT_S)
                if process.returncode is None:
                    say(f"control plane: still {what}, {time.monotonic() - began:.0f} s")
        finally:
            if process.poll() is None:
                kill_group(process.pid)
                process.wait()
        if process.returncode:
            output.seek(0)
            raise BuildFailed(f"{' '.join(command)} failed:\n{output.read()[-4000:]}")
    return time.monotonic() - began
