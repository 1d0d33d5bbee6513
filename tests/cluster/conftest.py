"""A real control plane for the tests in this folder, and the kit (`clusterkit`) that runs it.

`cluster` is started once. Every test has a namespace of its own, and nodes of its own where it wants pods to run.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

HERE = Path(__file__).parent
CRDS = HERE.parents[1] / "crds"
sys.path[:0] = [path for path in (str(HERE), str(HERE.parent / "fleet")) if path not in sys.path]

from clusterkit import cluster as clusters  # noqa: E402 - importable only from here on
from clusterkit import programs  # noqa: E402
from clusterkit.api import Api  # noqa: E402
from clusterkit.audit import Audit  # noqa: E402
from clusterkit.cluster import Cluster  # noqa: E402
from clusterkit.control_plane import ControlPlane  # noqa: E402
from clusterkit.kubectl import Kubectl  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster",
        choices=("own", "existing"),
        default="own",
        help="where the tests of tests/cluster run: a control plane of their own, or the cluster of $KUBECONFIG",
    )


def pytest_configure() -> None:
    """A SIGTERM ends a run as Ctrl-C does: fixtures are torn down, nothing is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the programs before the first test, whose time limit is not meant for that."""
    config = session.config
    if config.option.collectonly or not any(HERE in item.path.parents for item in session.items):
        return
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            programs.ensure(_say, ["kubectl"] if config.option.cluster == "existing" else programs.PACKAGES)
        except programs.BuildFailed as error:
            pytest.exit(str(error), returncode=1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of this run, and its administrator's rights."""
    found = programs.find()
    if request.config.getoption("--cluster") == "existing":
        with clusters.existing(found["kubectl"]) as there:
            yield there
    else:
        with clusters.own(tmp_path_factory.mktemp("cluster"), found) as made:
            yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crds(cluster: Cluster) -> None:
    """The custom resources, installed and served."""
    applied = await cluster.kubectl.raw("apply", "--server-side", "--force-conflicts", "-f", str(CRDS), "-o=name")
    await cluster.kubectl.raw("wait", *applied.split(), "--for=condition=Established", "--timeout=60s")


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[Api]:
    """The administrator's connection to the API server."""
    async with cluster.api() as made:
        yield made


@pytest.fixture
def plane(cluster: Cluster) -> ControlPlane:
    """The processes of our own control plane, to be killed and started again."""
    if cluster.plane is None:
        pytest.skip("an existing cluster's control plane is not ours to kill")
    return cluster.plane


@pytest.fixture
def audit(cluster: Cluster) -> Audit:
    """The audit log of our own control plane."""
    if cluster.audit is None:
        pytest.skip("an existing cluster's audit log is out of reach")
    return cluster.audit


@pytest.fixture
async def namespace(api: Api) -> AsyncIterator[str]:
    """A fresh namespace that enforces the restricted pod security standard."""
    name = await clusters.make_namespace(api)
    yield name
    await clusters.drop_namespace(api, name)


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Kubectl:
    """kubectl in this test's namespace."""
    return cluster.kubectl.within(namespace)
