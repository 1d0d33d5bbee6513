"""A real control plane for the tests in this folder, and the kit (`clusterkit`) that runs it.

`cluster` is started once. Every test has a namespace of its own, and nodes of its own where it wants pods to run.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
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
from clusterkit.kubectl import Kubectl, KubectlFailed  # noqa: E402
from clusterkit.node.node import Node  # noqa: E402
from clusterkit.node.settings import Image, python  # noqa: E402
from clusterkit.platform import WORKER_IMAGE, Platform, platform, worker_image  # noqa: E402
from clusterkit.scene import Scene  # noqa: E402

FAILED = pytest.StashKey[bool]()
"""Whether a test has failed, on the test's item."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster",
        choices=("own", "existing"),
        default="own",
        help="where the tests of tests/cluster run: a control plane of their own, or the cluster of $KUBECONFIG",
    )


def pytest_configure() -> None:
    """A SIGTERM ends a run as Ctrl-C does: fixtures are torn down, nothing is left behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures know that their test has failed, so that they tell what they know."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


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
def images() -> dict[str, Image]:
    """What stand-in nodes run for an image."""
    return {"berth/web:test": python(str(HERE / "clusterkit/web.py")), WORKER_IMAGE: worker_image()}


@pytest.fixture
async def start_node(
    request: pytest.FixtureRequest, cluster: Cluster, images: dict[str, Image], tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[Node]]]:
    """Start stand-in nodes: `await start_node(capacity=Capacity(cpu="1"))`. They are gone after the test."""
    nodes: list[Node] = []

    async def start(**wanted: Any) -> Node:
        if cluster.plane is None:
            pytest.skip("an existing cluster has nodes of its own")
        nodes.append(await stack.enter_async_context(Node(cluster, tmp_path, images, **wanted)))
        return nodes[-1]

    async with AsyncExitStack() as stack:
        yield start
        if request.node.stash.get(FAILED, False):
            print(*(node.last_words() for node in nodes), sep="\n")


@pytest.fixture
async def node(start_node: Callable[..., Awaitable[Node]]) -> Node:
    """A stand-in node, for tests that order faults from it or know its images; skipped on an existing cluster."""
    return await start_node()


@pytest.fixture
async def namespace(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    api: Api,
    start_node: Callable[..., Awaitable[Node]],  # noqa: ARG001 - so that nodes outlive the namespace
) -> AsyncIterator[str]:
    """A fresh namespace that enforces the restricted pod security standard."""
    name = await clusters.make_namespace(api)
    yield name
    if request.node.stash.get(FAILED, False):
        await _tell_about(cluster, name)
    await clusters.drop_namespace(api, name)


@pytest.fixture
def namespaces(namespace: str) -> list[str]:
    """Where the platform works: a module that wants more than the test's own says so. The first must outlive it."""
    return [namespace]


async def _tell_about(cluster: Cluster, namespace: str) -> None:
    """Print what a person would look at first."""
    kubectl = cluster.kubectl.within(namespace)
    with suppress(KubectlFailed):
        for what in (("pods", "-o", "wide"), ("events", "--sort-by=.lastTimestamp")):
            print(await kubectl.raw("get", *what))
    if cluster.plane is not None and cluster.plane.ended():
        print(cluster.plane.last_words())


@pytest.fixture
def berth_args() -> dict[str, Any]:
    """What a test or a module wants otherwise of its platform: `gateways`, `gateway_args`, `operator_args`, …"""
    return {}


@pytest.fixture
async def berth(  # noqa: PLR0917 - fixtures by name
    request: pytest.FixtureRequest,
    cluster: Cluster,
    crds: None,  # noqa: ARG001 - what it watches must be there
    namespaces: list[str],
    berth_args: dict[str, Any],
    tmp_path: Path,
) -> AsyncIterator[Platform]:
    """Redis, two gateways and the operator, for this test's namespaces alone."""
    if cluster.plane is None:
        pytest.skip("the gateways of this machine do not reach the pods of an existing cluster")
    async with platform(cluster, tmp_path / "berth", namespaces, **berth_args) as made:
        yield made
        if request.node.stash.get(FAILED, False):
            print(made.last_words())


@pytest.fixture
async def scene(berth: Platform, api: Api, kubectl: Kubectl, namespace: str, node: Node) -> AsyncIterator[Scene]:
    """The platform with a node for its workers, and a client."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Scene(berth, namespace, api, kubectl, node, http)


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Kubectl:
    """kubectl in this test's namespace."""
    return cluster.kubectl.within(namespace)
