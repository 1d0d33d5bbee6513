"""Compares the engine's tensor side with transformers: 100 prompts × 4 architectures × 3 page sizes, in float32.

    python tests/bench/parity.py [--prompts 100] [--tokens 24] [--attention native]

Each prompt runs alone and in a mixed batch (chunks of prompts beside others' decodes, scattered pages). Greedy tokens
must be equal and their logprobs within 1e-5 + 1e-5 relative. Exit status 1 if one is not.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "worker"))

import torch
from transformers.utils import logging

from berth_worker.engine.runner import TorchRunner
from modelkit import checkpoints, drive, oracle

PAGE_SIZES = (1, 16, 256)
LONGEST = 160
"""Several times the attention window of the tiny Mistral."""


@dataclass
class Tally:
    """What one cell of the table came to."""

    outputs: int = 0
    worst: float = 0.0
    """The largest difference of a logprob."""
    faults: list[str] = field(default_factory=list)

    def judge(self, model, name: str, done: drive.Drive) -> None:
        verdict = oracle.judge_greedy(model, done.prompt, done.output, done.logprobs)
        self.outputs += 1
        self.faults += [f"{name}: prompt {done.key}: {fault}" for fault in verdict.faults]
        self.worst = max(self.worst, verdict.worst)


def prompts_of(count: int) -> list[list[int]]:
    rng = random.Random(4)
    return [[rng.randrange(256) for _ in range(rng.randint(1, LONGEST))] for _ in range(count)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--attention", default="auto", help="the backend, as the worker takes it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    prompts = prompts_of(args.prompts)
    print(f"attention: {args.attention}")
    print(f"{'architecture':14}{'page':>6}{'alone':>8}{'mixed':>8}{'worst logprob':>16}{'faults':>8}{'seconds':>9}")
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for family in checkpoints.ARCHITECTURES:
            model = checkpoints.random_model(family)
            path = checkpoints.save(model, Path(folder) / family)
            for page_size in PAGE_SIZES:
                began = time.monotonic()
                runner = TorchRunner.load(
                    path, page_size=page_size, num_pages=4096 // page_size, attention=args.attention
                )
                alone, mixed = Tally(), Tally()
                for done in drive.generate(runner, prompts, args.tokens):
                    alone.judge(model, f"{family}, page {page_size}, alone", done)
                for done in drive.generate(runner, prompts, args.tokens, chunk=37, together=8, scatter=page_size):
                    mixed.judge(model, f"{family}, page {page_size}, mixed", done)
                found = alone.faults + mixed.faults
                worst = max(alone.worst, mixed.worst)
                print(
                    f"{family:14}{page_size:6}{alone.outputs:8}{mixed.outputs:8}{worst:16.1e}{len(found):8}"
                    f"{time.monotonic() - began:9.1f}",
                    flush=True,
                )
                faults += found
    for fault in faults:
        print(fault)
    print("equal to transformers" if not faults else f"{len(faults)} outputs differ from transformers")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
