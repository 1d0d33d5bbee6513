"""A worker process for each row of the matrix, and what judges its answers."""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from modelkit import checkpoints, oracle
from modelkit.process import WorkerProcess, flags
from modelkit.rows import DAILY, FULL, ROWS, SLOTS, Row, Size
from modelkit.talk import Said, Worker

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)  # for the tools beside this file, which are no package

ANSWER_S = 60.0
"""A request that takes longer hangs: the largest takes a few seconds on a loaded machine."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the matrix at its full size: minutes instead of seconds")
    parser.addoption("--matrix-seed", type=int, default=0, help="seeds the matrix' prompts")


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> Size:
    return FULL if request.config.getoption("--full", default=False) else DAILY


@pytest.fixture(scope="session")
def model() -> PreTrainedModel:
    """What the workers serve, as transformers runs it."""
    return checkpoints.random_model("llama", max_position_embeddings=ROWS[0].context)


@pytest.fixture(scope="session")
def folder(model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save(model, tmp_path_factory.mktemp("matrix"))


@dataclass
class Fleet:
    """A process a row, started when it is first needed and again when a test before has broken it."""

    folder: Path
    size: Size
    processes: dict[Row, WorkerProcess] = field(default_factory=dict)

    def get(self, row: Row) -> str:
        """Return the URL of a healthy worker."""
        options = {"model": self.folder, "dtype": "float32", "threads": 1, "slots": SLOTS, "check_memory": "busy"}
        args = tuple(flags(options | row.flags(self.size.pool)))
        process = self.processes.setdefault(row, WorkerProcess(args))
        if not process.healthy():
            process.stop()
            process.start()
        return process.url


@pytest.fixture(scope="session")
def fleet(folder: Path, size: Size) -> Iterator[Fleet]:
    fleet = Fleet(folder, size)
    yield fleet
    for process in fleet.processes.values():
        process.stop()


@pytest.fixture(params=ROWS, ids=str)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture
async def worker(request: pytest.FixtureRequest, fleet: Fleet, row: Row) -> AsyncIterator[Worker]:
    """A worker without KV, of each row. What a test leaves behind must be nothing once its sessions are closed."""
    seed = request.config.getoption("--matrix-seed", default=0)
    url, dice = fleet.get(row), random.Random(f"{seed} {request.node.name}")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as http:
        worker = Worker(url, http, dice)
        await worker.flush()
        yield worker
        await worker.close_all()


@pytest.fixture
def judge(model: PreTrainedModel) -> Callable[..., None]:
    """Assert that conversations went as they go in transformers: `judge(session.turns, …)`."""

    def judge(*conversations: Sequence[Said]) -> None:
        for turns in conversations:
            assert not oracle.faults_of(model, turns)

    return judge
