"""Reads a checkpoint's safetensors into memory, strictly.

Every tensor on disk has one place and every place gets its tensor, of the right shape; anything else is an error that
names the tensor. A model that is nearly right answers nearly sensibly, and nobody finds out for weeks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError, safe_open

from berth_worker.models.config import read_json
from berth_worker.models.errors import ModelError
from berth_worker.models.weights import Weights, allocate, places

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from berth_worker.models.config import ModelConfig

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
_STORED: Final = (torch.float32, torch.bfloat16, torch.float16)
_DERIVED_SUFFIX: Final = "rotary_emb.inv_freq"
"""Old checkpoints store the rotary frequencies, which follow from the config."""


def weight_files(folder: Path) -> list[Path]:
    """Return the checkpoint's safetensors files in order. Raises ModelError where there are none or one is missing."""
    if (folder / INDEX).is_file():
        names = read_json(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()) or not names:
            raise ModelError(f"{INDEX}: weight_map must map tensors to files")
        found = sorted(set(names.values()))
        for name in found:
            if "/" in name or "\\" in name or not (folder / name).is_file():
                raise ModelError(f"{INDEX}: {name!r} is no file of the checkpoint")
        return [folder / name for name in found]
    if not (folder / SINGLE).is_file():
        raise ModelError(f"{folder} has neither {SINGLE} nor {INDEX}")
    return [folder / SINGLE]


def load_weights(folder: Path, config: ModelConfig, dtype: torch.dtype) -> Weights:
    """Return the checkpoint's weights in `dtype`. Raises ModelError that names the tensor at fault."""
    weights = allocate(config, dtype)
    wanted = places(config, weights)
    filled: set[str] = set()
    tied_head: Tensor | None = None
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (no dict, and it does not iterate)
                    if name.endswith(_DERIVED_SUFFIX):
                        continue
                    if name in filled:
                        raise ModelError(f"tensor {name} is stored twice, the second time in {path.name}")
                    if config.tied and name == "lm_head.weight":
                        tied_head = file.get_tensor(name)
                        continue
                    if name not in wanted:
                        raise ModelError(f"{path.name} holds tensor {name}, which {config.architecture} does not have")
                    _fill(name, wanted[name], file.get_tensor(name))
                    filled.add(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"cannot read {path}: {error}") from error
    missing = sorted(wanted.keys() - filled)
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ModelError(f"the checkpoint lacks tensor {missing[0]}{more}")
    if tied_head is not None:
        _check_tied(weights.embedding, tied_head)
    return weights


def _fill(name: str, place: Tensor, stored: Tensor) -> None:
    if stored.shape != place.shape:
        raise ModelError(f"tensor {name} has shape {list(stored.shape)}, the config calls for {list(place.shape)}")
    if stored.dtype not in _STORED:
        raise ModelError(f"tensor {name} is stored as {stored.dtype}, which is not supported")
    place.copy_(stored)
    if not bool(torch.isfinite(place.sum(dtype=torch.float64))):
        raise ModelError(f"tensor {name} holds values that are not finite")


def _check_tied(embedding: Tensor, head: Tensor) -> None:
    if head.shape != embedding.shape or not torch.equal(head.to(embedding.dtype), embedding):
        raise ModelError("tensor lm_head.weight differs from model.embed_tokens.weight, yet the config ties them")
