"""The runner says what transformers says, alone and in company, whatever the pages."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from berth_kernels.interface import KernelError
from berth_kernels.native import paths
from berth_worker.engine.batch import SequenceStep
from berth_worker.engine.runner import TorchRunner
from modelkit import checkpoints, drive, oracle

LONGEST = 70
"""Longer than any family's attention window."""


@pytest.fixture(scope="module", params=checkpoints.FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return checkpoints.random_model(family)


@pytest.fixture(scope="module")
def load(tiny_checkpoint, family):
    def get(page_size: int) -> TorchRunner:
        return TorchRunner.load(tiny_checkpoint(family), page_size=page_size, num_pages=2048 // page_size)

    return get


@pytest.fixture
def _own_products():
    """What the native backend promises, it promises where it multiplies by itself."""
    try:
        best = paths()[0]
    except KernelError as error:
        pytest.skip(str(error))
    if best == "generic":
        pytest.skip("without an instruction set of ours, products are torch's")


def prompts_of(seed: int, count: int) -> list[list[int]]:
    rng = random.Random(seed)
    lengths = [1, LONGEST, *(rng.randint(2, LONGEST) for _ in range(count - 2))]
    return [[rng.randrange(256) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize("page_size", [1, 16, 256])
def test_greedy_tokens_and_logprobs_are_those_of_transformers(model, load, page_size):
    runner = load(page_size)
    prompts = prompts_of(page_size, 6)
    alone = drive.generate(runner, prompts, 12)
    mixed = drive.generate(runner, prompts, 12, chunk=9, together=4, scatter=3)
    for one, among in zip(alone, mixed, strict=True):
        assert oracle.judge_greedy(model, one.prompt, one.output, one.logprobs).faults == []
        assert oracle.judge_greedy(model, among.prompt, among.output, among.logprobs).faults == []


def test_long_and_short_sequences_decode_together(model, load):
    runner = load(16)
    rng = random.Random(5)
    prompts = [[rng.randrange(256) for _ in range(length)] for length in (900, 3, 40)]
    for each in drive.generate(runner, prompts, 8, chunk=600, together=3, scatter=1):
        assert oracle.judge_greedy(model, each.prompt, each.output, each.logprobs).faults == []


@pytest.mark.usefixtures("_own_products")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", checkpoints.ARCHITECTURES, indirect=True)
def test_native_kernels_give_a_token_and_its_logprob_the_same_bits_in_any_company(tiny_checkpoint, family, dtype):
    runner = TorchRunner.load(
        tiny_checkpoint(family), page_size=16, num_pages=128, dtype=dtype, attention="native", threads=1
    )
    prompts = prompts_of(11, 8)
    alone = drive.generate(runner, prompts, 12)
    for chunk, together in ((9, 5), (1, 2), (40, 8)):
        for one, among in zip(alone, drive.generate(runner, prompts, 12, chunk=chunk, together=together), strict=True):
            assert (among.output, among.logprobs) == (one.output, one.logprobs)


@pytest.mark.parametrize("family", checkpoints.ARCHITECTURES, indirect=True)
def test_bfloat16_teacher_forced_stays_within_its_tolerance(family, tmp_path):
    # Milder weights: the larger ones amplify rounding, transformers' own as much, beyond what can be judged.
    model = checkpoints.random_model(family, scale=0.4)
    runner = TorchRunner.load(
        checkpoints.save(model, tmp_path, dtype=torch.bfloat16), page_size=16, num_pages=64, dtype="bfloat16"
    )
    ids = prompts_of(7, 2)[1]
    pages = np.arange(runner.num_pages, dtype=np.int32)
    step = SequenceStep(1, np.array(ids, np.int32), 0, len(ids), pages, None, prompt_logprobs_from=1)
    said = runner.step([step])[0].prompt_logprobs
    theirs = oracle.logprobs(model, ids)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert (torch.tensor(said) - theirs).abs().max() < oracle.BF16_ATOL
