"""The words of each model, fetched from one of its workers at first use and kept by fingerprint while we live.

A fingerprint names the model's files, so what was fetched once is good for ever; the files lie in a private folder that
goes with the process, and each is checked against the hash the worker announced.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
from pathlib import Path

import structlog

from berth_api.errors import NoCapacity
from berth_api.wire import ModelInfo
from berth_gateway.backends import Backends
from berth_gateway.ledger.records import WorkerRecord
from berth_gateway.tokens import ModelText
from berth_gateway.workers import WorkerError, WorkerGone

log = structlog.get_logger(__name__)

_FILE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class Models:
    """One instance a process. Loads happen in a thread, one a model however many turns wait for it."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._folder = tempfile.TemporaryDirectory(prefix="berth-models-", ignore_cleanup_errors=True)
        self._loaded: dict[str, ModelText] = {}
        self._loading: dict[str, asyncio.Task[ModelText]] = {}

    def close(self) -> None:
        for task in self._loading.values():
            task.cancel()
        self._folder.cleanup()

    async def get(self, namespace: str, fleet: str, fingerprint: str) -> ModelText:
        """Raises `NoCapacity` while no worker of that model can be asked."""
        loaded = self._loaded.get(fingerprint)
        if loaded is not None:
            return loaded
        task = self._loading.get(fingerprint)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(namespace, fleet, fingerprint))
            self._loading[fingerprint] = task
            task.add_done_callback(lambda _: self._loading.pop(fingerprint, None))
        return await asyncio.shield(task)

    async def wait(self, namespace: str, fleet: str, fingerprint: str, *, for_s: float) -> ModelText:
        """As `get`, trying again for so long while no worker can be asked: a turn waits for capacity anyway."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + for_s
        while True:
            try:
                return await self.get(namespace, fleet, fingerprint)
            except NoCapacity:
                if loop.time() >= deadline:
                    raise
            await asyncio.sleep(self._backends.settings.turn.capacity_pause_s)

    async def _load(self, namespace: str, fleet: str, fingerprint: str) -> ModelText:
        workers = await self._backends.ledger.workers(namespace, fleet=fleet)
        for worker in sorted(workers, key=lambda one: one.suspect):
            if worker.fingerprint != fingerprint:
                continue
            try:
                self._loaded[fingerprint] = await self._fetch(worker)
            except (WorkerError, ValueError, OSError) as error:
                log.warning("model.fetch_failed", worker=worker.id, detail=str(error))
            else:
                log.info("model.loaded", fingerprint=fingerprint, worker=worker.id)
                return self._loaded[fingerprint]
        raise NoCapacity(f"no worker of fleet {namespace}/{fleet} can be asked for its tokenizer", retry_after=1)

    async def _fetch(self, worker: WorkerRecord) -> ModelText:
        info = await self._backends.workers.model(worker.id, worker.url)
        if info.fingerprint != worker.fingerprint:
            raise WorkerGone("wrong_model", f"{info.fingerprint} instead of {worker.fingerprint}")
        folder = Path(self._folder.name) / hashlib.sha256(info.fingerprint.encode()).hexdigest()
        folder.mkdir(exist_ok=True)
        for name, digest in info.files.items():
            await self._fetch_file(worker, folder, name, digest)
        return await asyncio.to_thread(_load_text, info, folder)

    async def _fetch_file(self, worker: WorkerRecord, folder: Path, name: str, digest: str) -> None:
        if not _FILE_NAME.fullmatch(name) or name.startswith("."):
            raise WorkerGone("garbled", f"a file named {name!r}")
        data = await self._backends.workers.file(worker.id, worker.url, name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise WorkerGone("garbled", f"{name} is not the file that was announced")
        await asyncio.to_thread((folder / name).write_bytes, data)


def _load_text(info: ModelInfo, folder: Path) -> ModelText:
    """Raises `ValueError` for files that are no tokenizer."""
    try:
        return ModelText(info, folder)
    except Exception as error:  # `tokenizers` raises bare exceptions of its own
        raise ValueError(f"the tokenizer of {info.name} cannot be read: {error}") from error
