"""From settings to a worker ready to serve: checkpoint, KV pool, engine."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berth_api.wire import ModelInfo
from berth_worker.builtin import resolve
from berth_worker.engine.core import Core
from berth_worker.engine.engine import Engine
from berth_worker.engine.intake import Model
from berth_worker.engine.runner import TorchRunner, compute_dtype
from berth_worker.engine.scheduler import Limits
from berth_worker.engine.tokenizer import Tokenizer, load_tokenizer
from berth_worker.models.config import load_config
from berth_worker.models.errors import ModelError
from berth_worker.server import checkpoint
from berth_worker.server.served import Served

if TYPE_CHECKING:
    from berth_worker.models.config import ModelConfig
    from berth_worker.settings import Settings


def load(settings: Settings) -> Served:
    """Load the model and build the engine around it. Blocks. Raises `ModelError` or `KernelError`."""
    try:
        folder = resolve(settings.model.name)
    except ValueError as error:
        raise ModelError(str(error)) from error
    config = load_config(folder)
    pages = pool_pages(settings, folder, config)
    tokenizer = load_tokenizer(folder)
    runner = TorchRunner.load(
        folder,
        page_size=settings.cache.page_size,
        num_pages=pages,
        dtype=settings.model.dtype,
        attention=settings.model.attention,
        threads=settings.model.threads,
    )
    context = context_length(settings, config, pages)
    model, files = model_info(settings, folder, config, tokenizer, context)
    engine = Engine(build_core(settings, runner, tokenizer, model))
    worker_id = f"{settings.server.pod_uid}.{uuid.uuid4()}"
    return Served(worker_id, engine, tokenizer, model, files, settings, details(settings, runner, folder, context))


def pool_pages(settings: Settings, folder: Path, config: ModelConfig) -> int:
    """Return the pages of the KV pool: as many tokens as were asked for, or as the memory meant for KV holds."""
    cache = settings.cache
    if cache.max_total_tokens is not None:
        return max(1, cache.max_total_tokens // cache.page_size)
    itemsize = compute_dtype(folder, config, settings.model.dtype).itemsize
    wanted = config.max_positions * cache.slots
    tokens = min(wanted, cache.kv_bytes // config.kv_bytes_per_token(itemsize))
    return max(1, tokens // cache.page_size)


def context_length(settings: Settings, config: ModelConfig, pages: int) -> int:
    """Return the most tokens of history + input + output: the model's, the flag's and the pool's limit at once."""
    asked = settings.cache.context_length
    return min(config.max_positions, pages * settings.cache.page_size, asked or config.max_positions)


def model_info(
    settings: Settings, folder: Path, config: ModelConfig, tokenizer: Tokenizer, context: int
) -> tuple[ModelInfo, dict[str, Path]]:
    """Return what a gateway must know of the model, and the files it may fetch."""
    files = checkpoint.shared_files(folder)
    hashes = checkpoint.digests(files)
    info = ModelInfo(
        name=settings.model.name if settings.model.name != str(folder) else folder.resolve().name,
        fingerprint=checkpoint.fingerprint(folder, hashes),
        vocab_size=config.vocab_size,
        context_length=context,
        bos_token_id=checkpoint.bos_token_id(folder, tokenizer.token_id),
        eos_token_ids=checkpoint.eos_token_ids(folder, tokenizer.token_id),
        files=hashes,
    )
    return info, files


def build_core(settings: Settings, runner: TorchRunner, tokenizer: Tokenizer, model: ModelInfo) -> Core:
    """Return the engine's core around `runner`."""
    slots, schedule = settings.cache.slots, settings.schedule
    running = min(schedule.max_running or slots, slots)
    return Core(
        runner,
        Model(
            tokenizer,
            model.fingerprint,
            model.vocab_size,
            model.context_length,
            frozenset(model.eos_token_ids),
            model.bos_token_id,
        ),
        Limits(
            chunk=schedule.chunked_prefill_size,
            running=running,
            queue=schedule.queue_limit,
            queue_s=schedule.queue_timeout_s,
            mixed=schedule.mixed_chunk,
            retract_every=schedule.retract_every or 0,
            headroom=schedule.headroom,
        ),
        slots=slots,
        check=settings.cache.check,
        clock=time.monotonic,
    )


def details(settings: Settings, runner: TorchRunner, folder: Path, context: int) -> dict[str, Any]:
    """Return SGLang's fields of /get_server_info, as they turned out."""
    schedule = settings.schedule
    return {
        "model_path": str(folder),
        "tokenizer_path": str(folder),
        "served_model_name": settings.model.name,
        "dtype": settings.model.dtype,
        "attention_backend": runner.attention,
        "context_length": context,
        "page_size": settings.cache.page_size,
        "max_total_num_tokens": runner.num_pages * settings.cache.page_size,
        "chunked_prefill_size": schedule.chunked_prefill_size,
        "max_running_requests": min(schedule.max_running or settings.cache.slots, settings.cache.slots),
        "max_queued_requests": schedule.queue_limit,
        "enable_mixed_chunk": schedule.mixed_chunk,
    }
