"""What a checkpoint folder says to a gateway: which files turn text into ids, which ids are special, and who it is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from berth_worker.models.config import read_json
from berth_worker.models.errors import ModelError
from berth_worker.models.loader import weight_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
"""What a tokenizer and a chat template may consist of."""

BLOCK = 1 << 20
BLOCKS = 64
"""Blocks of a weight file that count for the fingerprint: enough to tell a fine-tune, quick for a file of any size."""


def shared_files(folder: Path) -> dict[str, Path]:
    """Return the files that a gateway needs, by name."""
    return {name: folder / name for name in FILES if (folder / name).is_file()}


def digests(files: dict[str, Path]) -> dict[str, str]:
    """Return each file's sha256 in hex."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def fingerprint(folder: Path, hashes: dict[str, str]) -> str:
    """Return what tells this model from every other: tokenizer, config and weights.

    Of a weight file its size and `BLOCKS` evenly spread blocks count.
    """
    whole = hashlib.sha256()
    for name in sorted(hashes):
        whole.update(f"{name}={hashes[name]}\n".encode())
    for path in weight_files(folder):
        size = path.stat().st_size
        whole.update(f"{path.name}:{size}\n".encode())
        step = max(BLOCK, size // BLOCKS)
        with path.open("rb") as file:
            for at in range(0, size, step):
                file.seek(at)
                whole.update(file.read(BLOCK))
    return whole.hexdigest()[:32]


def eos_token_ids(folder: Path, id_of: Callable[[str], int | None]) -> list[int]:
    """Return the ids that end an answer: the generation config's, the config's and the tokenizer's own."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            value = read_json(folder / name).get("eos_token_id")
            found.update(_ids(name, value))
    own = _special(folder, "eos_token", id_of)
    return sorted(found if own is None else found | {own})


def bos_token_id(folder: Path, id_of: Callable[[str], int | None]) -> int | None:
    """Return the id that the tokenizer puts before a text, None if it has none."""
    return _special(folder, "bos_token", id_of)


def _ids(name: str, value: Any) -> list[int]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in values):
        raise ModelError(f"{name}: eos_token_id must be one id or several, not {value!r}")
    return values


def _special(folder: Path, name: str, id_of: Callable[[str], int | None]) -> int | None:
    if not (folder / "tokenizer_config.json").is_file():
        return None
    value = read_json(folder / "tokenizer_config.json").get(name)
    text = value.get("content") if isinstance(value, dict) else value
    return id_of(text) if isinstance(text, str) else None
