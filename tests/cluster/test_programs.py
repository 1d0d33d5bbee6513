"""The control plane's programs are built once, by whoever comes first, and only those that are missing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from clusterkit import programs
from clusterkit.programs import PACKAGES, BuildFailed

GO = """\
#!/bin/sh
echo "$@" >> {folder}/calls
case $1 in
    version) echo go version go{version} linux/amd64 ;;
    env) echo go{version} ;;
    build) {build} ;;
esac
"""
WRITES = 'while [ "$1" != -o ]; do shift; done; echo > "$2"; chmod +x "$2"'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a Go of ours."""
    monkeypatch.setenv("BERTH_CLUSTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    go(tmp_path)
    return tmp_path


def go(folder: Path, *, version: str = "1.99.0", build: str = WRITES) -> None:
    program = folder / "go"
    program.write_text(GO.format(folder=folder, version=version, build=build))
    program.chmod(0o755)


def built(folder: Path) -> list[str]:
    """The packages that Go was asked to build, in order."""
    calls = (folder / "calls").read_text().splitlines()
    return [call.split()[-1] for call in calls if call.startswith("build")]


def test_all_are_built_once_and_the_steps_are_told(folder: Path) -> None:
    said: list[str] = []
    found = programs.ensure(said.append)

    assert found.keys() == PACKAGES.keys()
    assert built(folder) == list(PACKAGES.values())
    assert "Kubernetes v1." in said[0]
    assert str(programs.cache()) in said[0]
    assert [line.partition(" built in ")[0].split()[-1] for line in said[2:]] == list(PACKAGES)
    assert programs.ensure(said.append) == found
    assert built(folder) == list(PACKAGES.values())


def test_what_the_assets_hold_is_not_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = folder / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (assets / name).touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))

    found = programs.ensure(lambda _: None)

    assert found["etcd"] == assets / "etcd"
    assert built(folder) == [PACKAGES["kube-controller-manager"], PACKAGES["kube-scheduler"]]


def test_two_runs_at_once_build_once(folder: Path) -> None:
    runs = [threading.Thread(target=programs.ensure, args=(lambda _: None,)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()

    assert built(folder) == list(PACKAGES.values())


def test_a_failed_build_says_what_go_said_and_leaves_nothing(folder: Path) -> None:
    go(folder, build=f"{WRITES}; echo no space left >&2; exit 1")

    with pytest.raises(BuildFailed, match="no space left"):
        programs.ensure(lambda _: None)

    assert list(programs.cache().iterdir()) == []


@pytest.mark.usefixtures("folder")
def test_a_go_that_is_too_old_is_named(folder: Path) -> None:
    go(folder, version="1.19.8")

    with pytest.raises(BuildFailed, match=r"go is go1\.19\.8: install Go 1\.24\.0 or newer"):
        programs.ensure(lambda _: None)
