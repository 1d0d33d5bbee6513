"""What one step returns, writes and refuses."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from berth_api.wire import Sampling
from berth_kernels.interface import KernelError
from berth_worker.builtin import BUILTIN_MODELS
from berth_worker.engine.batch import SampleSpec, SequenceStep
from berth_worker.engine.runner import TorchRunner, compute_dtype
from berth_worker.models.config import load_config
from berth_worker.models.errors import ModelError
from modelkit import checkpoints, drive, oracle


@pytest.fixture(scope="module")
def runner(tiny_checkpoint):
    return TorchRunner.load(tiny_checkpoint("llama"), page_size=16, num_pages=64)


@pytest.fixture(scope="module")
def model():
    return checkpoints.random_model("llama")


@pytest.fixture(scope="module")
def ids():
    return random.Random(2).choices(range(256), k=70)


def one_step(runner: TorchRunner, ids: list[int], **fields) -> object:
    pages = np.arange(runner.num_pages, dtype=np.int32)
    start = fields.pop("start", 0)
    end = fields.pop("end", len(ids))
    step = SequenceStep(1, np.array(ids, np.int32), start, end, pages, fields.pop("sample", None), **fields)
    return runner.step([step])[0]


def test_prompt_logprobs_cover_what_was_asked_for_and_the_chunk_border(runner, model, ids):
    theirs = oracle.logprobs(model, ids)
    first = one_step(runner, ids, end=30, prompt_logprobs_from=5, prompt_top_logprobs=2)
    rest = one_step(runner, ids, start=30, prompt_logprobs_from=5)
    said = first.prompt_logprobs + rest.prompt_logprobs
    expected = [float(theirs[i - 1, ids[i]]) for i in range(5, len(ids))]
    assert said == pytest.approx(expected, abs=1e-5, rel=1e-5)
    values, best = theirs[4].topk(2)
    assert [token for _, token in first.prompt_top[0]] == best.tolist()
    assert [value for value, _ in first.prompt_top[0]] == pytest.approx(values.tolist(), abs=1e-5)
    assert len(first.prompt_top) == 26
    assert rest.prompt_top[0] == []


def test_the_last_chunk_knows_no_token_behind_it(runner, ids):
    sample = SampleSpec(drive.GREEDY, seed=0, prompt_length=len(ids))
    assert len(one_step(runner, ids, prompt_logprobs_from=1, sample=sample).prompt_logprobs) == len(ids) - 1
    assert len(one_step(runner, ids, prompt_logprobs_from=1).prompt_logprobs) == len(ids) - 1


def test_prompt_logprobs_of_a_large_vocabulary_come_in_blocks(runner, ids, monkeypatch):
    whole = one_step(runner, ids, prompt_logprobs_from=1)
    monkeypatch.setattr("berth_worker.engine.logprobs.LOGIT_ELEMENTS", 7 * runner.vocab_size)
    assert one_step(runner, ids, prompt_logprobs_from=1).prompt_logprobs == pytest.approx(whole.prompt_logprobs)


def test_an_unfinished_chunk_draws_nothing(runner):
    result = one_step(runner, [1, 2, 3])
    assert (result.token, result.logprob, result.prompt_logprobs) == (None, None, [])


def test_top_logprobs_come_most_likely_first_and_hold_the_greedy_token(runner):
    sample = SampleSpec(drive.GREEDY, seed=0, prompt_length=3, return_logprob=True, top_logprobs=3)
    result = one_step(runner, [1, 2, 3], sample=sample)
    assert result.top[0] == (pytest.approx(result.logprob), result.token)
    assert [value for value, _ in result.top] == sorted((value for value, _ in result.top), reverse=True)


def test_an_empty_batch_is_no_step(runner):
    assert runner.step([]) == []


def test_a_step_writes_no_kv_outside_its_pages(runner):
    one_step(runner, [5] * 40)
    before = [pool.clone() for layer in runner._pool for pool in layer]
    pages = np.array([9, 4], np.int32)
    runner.step([SequenceStep(2, np.array([7] * 20, np.int32), 0, 20, pages, None)])
    for old, new in zip(before, (pool for layer in runner._pool for pool in layer), strict=True):
        changed = (old != new).any(-1).any(-1)
        assert changed[9].all()
        assert changed[4].nonzero()[:, 0].tolist() == [0, 1, 2, 3]
        changed[[9, 4]] = False
        assert not changed.any()


def test_kept_positions_tell_their_logprobs_and_keep_their_kv(runner, ids):
    first = one_step(runner, ids, prompt_logprobs_from=1)
    before = [pool.clone() for layer in runner._pool for pool in layer]
    again = [
        one_step(runner, ids, start=start, end=end, kept=60, prompt_logprobs_from=1)
        for start, end in ((0, 40), (40, 70))
    ]
    assert again[0].prompt_logprobs + again[1].prompt_logprobs == pytest.approx(first.prompt_logprobs, abs=1e-5)
    for old, new in zip(before, (pool for layer in runner._pool for pool in layer), strict=True):
        assert torch.equal(old.flatten(0, 1)[:60], new.flatten(0, 1)[:60])


def test_pages_that_do_not_reach_the_end_are_refused(runner):
    with pytest.raises(ValueError, match="1 pages of 16 tokens do not reach position 16"):
        runner.step([SequenceStep(1, np.zeros(17, np.int32), 0, 17, np.zeros(1, np.int32), None)])


def test_an_attention_backend_that_is_not_there_is_refused(tiny_checkpoint):
    with pytest.raises(KernelError, match="flashinfer"):
        TorchRunner.load(tiny_checkpoint("llama"), page_size=1, num_pages=1, attention="flashinfer")


def test_dtype_auto_is_the_checkpoints_own(tmp_path):
    folder = checkpoints.save(checkpoints.random_model("llama"), tmp_path, dtype=torch.bfloat16)
    config = load_config(folder)
    assert config.dtype == "bfloat16"
    assert compute_dtype(folder, config, "auto") == torch.bfloat16
    assert compute_dtype(folder, config, "float32") == torch.float32
    with pytest.raises(ModelError, match="float16"):
        compute_dtype(folder, config, "float16")


def test_the_builtin_model_is_stored_in_bfloat16_and_computed_in_float32():
    folder = BUILTIN_MODELS["berth-tiny"]
    config = load_config(folder)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert compute_dtype(folder, config, "auto") == torch.float32
    with pytest.raises(ModelError, match="float32"):
        compute_dtype(folder, config, "bfloat16")


@pytest.mark.parametrize("sampling", [drive.GREEDY, Sampling(temperature=1.0, top_p=0.95, frequency_penalty=0.5)])
def test_a_turn_resumed_elsewhere_goes_on_with_the_same_tokens(runner, tiny_checkpoint, ids, sampling):
    [whole] = drive.generate(runner, [ids], 30, sampling=sampling)
    elsewhere = TorchRunner.load(tiny_checkpoint("llama"), page_size=4, num_pages=64)
    pages = np.arange(64, dtype=np.int32)
    for said in range(30):
        end = len(ids) + said
        step = SequenceStep(said, whole.buffer[:end], 0, end, pages, whole.spec)
        assert elsewhere.step([step])[0].token == whole.output[said]
        elsewhere.forget(said)
