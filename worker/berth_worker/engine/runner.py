"""Runs a model over a paged KV pool: the scheduler's batches in, tokens out.

One pass of index work a step (ids, positions, slots), then tensors only. Logits are computed for the rows that somebody
asked about: a prefill chunk in the middle of a prompt costs no pass over the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from berth_kernels.interface import KVLayer
from berth_kernels.select import select
from berth_worker.builtin import BUILTIN_MODELS
from berth_worker.engine.batch import Sampled
from berth_worker.engine.logprobs import prompt_logprobs, token_logprobs
from berth_worker.engine.sampler import Sampler
from berth_worker.models.config import load_config
from berth_worker.models.decoder import Decoder
from berth_worker.models.errors import ModelError
from berth_worker.models.loader import load_weights
from berth_worker.models.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from berth_kernels.interface import Kernels
    from berth_worker.engine.batch import SequenceStep
    from berth_worker.models.config import ModelConfig
    from berth_worker.models.weights import Weights

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What `--dtype` may name, `auto` aside."""


def compute_dtype(folder: Path, config: ModelConfig, name: str) -> torch.dtype:
    """Return the dtype to compute in. `auto`: the checkpoint's own, float16 as float32.

    A built-in model is stored in bfloat16 for its size and computed in float32, always. Raises ModelError.
    """
    if name != "auto" and name not in DTYPES:
        raise ModelError(f"dtype must be auto, {' or '.join(DTYPES)}, not {name!r}")
    if folder.resolve() in BUILTIN_MODELS.values():
        if name == "bfloat16":
            raise ModelError("a built-in model is computed in float32: use --dtype auto or float32")
        return torch.float32
    return DTYPES.get(config.dtype if name == "auto" else name, torch.float32)


class TorchRunner:
    """A decoder and its KV pool in this process's memory. Engine thread only."""

    def __init__(
        self, config: ModelConfig, weights: Weights, kernels: Kernels, *, page_size: int, num_pages: int
    ) -> None:
        """Allocate a pool of `num_pages` pages of `page_size` tokens in the weights' dtype, zeroed."""
        self.config = config
        self.vocab_size = config.vocab_size
        self.num_pages = num_pages
        self.page_size = page_size
        self.attention = kernels.name
        self._kernels = kernels
        positions = min(config.max_positions, num_pages * page_size)
        self._decoder = Decoder(config, weights, kernels, positions)
        shape = (num_pages, page_size, config.kv_heads, config.head_dim)
        memory = Memory(weights.embedding.dtype)
        self._pool = [KVLayer(memory.new(*shape), memory.new(*shape)) for _ in config.windows]
        self._sampler = Sampler(config.vocab_size, kernels)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        page_size: int,
        num_pages: int,
        dtype: str = "auto",
        attention: str = "auto",
        threads: int | None = None,
    ) -> TorchRunner:
        """Load the checkpoint in `folder`. `threads` bounds torch's for the whole process; None leaves them.

        Raises ModelError for a checkpoint that cannot be served, KernelError for an attention backend.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        kernels = select(attention)
        config = load_config(folder)
        weights = load_weights(folder, config, compute_dtype(folder, config, dtype))
        return cls(config, weights, kernels, page_size=page_size, num_pages=num_pages)

    @torch.inference_mode()
    def step(self, batch: Sequence[SequenceStep]) -> list[Sampled]:
        """Run one forward pass over `batch`; one `Sampled` a sequence, in order."""
        if not batch:
            return []
        hidden = self._forward(batch)
        results = [Sampled() for _ in batch]
        first_row = 0
        sampled: list[tuple[int, int]] = []
        for index, step in enumerate(batch):
            rows = step.end - step.start
            if step.prompt_logprobs_from is not None:
                own = hidden[first_row : first_row + rows]
                prompt_logprobs(step, step.prompt_logprobs_from, own, self._decoder, results[index])
            first_row += rows
            if step.sample is not None:
                sampled.append((index, first_row - 1))
        if sampled:
            self._sample(batch, hidden, sampled, results)
        return results

    def forget(self, key: int) -> None:
        """Drop what is kept for a request that ended."""
        self._sampler.forget(key)

    def _forward(self, batch: Sequence[SequenceStep]) -> Tensor:
        plan = self._kernels.plan(batch, self.page_size)
        ids = np.concatenate([step.tokens[step.start : step.end] for step in batch], dtype=np.int64)
        positions = np.concatenate([np.arange(step.start, step.end) for step in batch])
        return self._decoder.forward(torch.from_numpy(ids), torch.from_numpy(positions), self._pool, plan)

    def _sample(
        self, batch: Sequence[SequenceStep], hidden: Tensor, sampled: list[tuple[int, int]], results: list[Sampled]
    ) -> None:
        """Fill `results` for the (sequence, row) pairs `sampled`."""
        if len(sampled) != len(hidden):
            hidden = hidden[torch.tensor([row for _, row in sampled])]
        logits = self._decoder.logits(hidden)
        steps = [batch[index] for index, _ in sampled]
        specs = [step.sample for step in steps if step.sample is not None]
        tokens = self._sampler.draw(logits, steps, specs)
        for (index, _), token in zip(sampled, tokens, strict=True):
            results[index].token = token
        for row, spec in enumerate(specs):
            if spec.return_logprob:
                result = results[sampled[row][0]]
                [result.logprob], [result.top] = token_logprobs(logits[row : row + 1], [tokens[row]], spec.top_logprobs)
