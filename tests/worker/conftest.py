"""Checkpoints for everything that loads one, made once a run, and the way to the kits beside this file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Tests run side by side; a pool of threads each would only make them wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

KITS = str(Path(__file__).parent)
if KITS not in sys.path:
    sys.path.insert(0, KITS)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a random checkpoint: `tiny_checkpoint("qwen3")`. Read-only: copy before changing it."""
    from modelkit import checkpoints

    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp(f"checkpoint-{family}")
            made[family] = checkpoints.save(checkpoints.random_model(family), folder)
        return made[family]

    return get
