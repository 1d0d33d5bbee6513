"""What this process serves: the facts that handlers need and that never change while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from berth_api.wire import ModelInfo
    from berth_worker.engine.engine import Engine
    from berth_worker.engine.text import Tokenizer
    from berth_worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Served:
    """One worker. `files` are those of `model.files`, by name."""

    id: str
    engine: Engine
    tokenizer: Tokenizer
    model: ModelInfo
    files: dict[str, Path]
    settings: Settings
    details: dict[str, Any]
    """Facts for /get_server_info alone: sizes and backends as they turned out."""
