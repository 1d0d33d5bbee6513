"""Promise 7: a draw is a pure function of (logits, seed, position, the session's tokens)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from berth_api.wire import Sampling
from berth_kernels.ops_reference import ReferenceOps
from berth_worker.engine.batch import SampleSpec, SequenceStep
from berth_worker.engine.sampler import Sampler

VOCAB = 12
NO_PAGES = np.zeros(0, np.int32)


def a_sampler(vocab: int = VOCAB) -> Sampler:
    return Sampler(vocab, ReferenceOps())


def a_step(tokens: list[int] | np.ndarray, key: int = 0) -> SequenceStep:
    return SequenceStep(key, np.asarray(tokens, np.int32), len(tokens) - 1, len(tokens), NO_PAGES, None)


def a_spec(seed: int = 0, prompt_length: int = 1, stop_ids: tuple[int, ...] = (), **sampling) -> SampleSpec:
    return SampleSpec(Sampling(**sampling), seed, prompt_length, stop_ids=stop_ids)


def draw(logits: list[float], position: int = 1, **spec) -> int:
    sampler = a_sampler(len(logits))
    return sampler.draw(torch.tensor([logits]), [a_step([0] * position)], [a_spec(**spec)])[0]


def draws(logits: list[float], count: int, **sampling) -> torch.Tensor:
    """Tokens at `count` positions of one session, whose logits never change."""
    sampler, batch, zeros = a_sampler(len(logits)), 500, np.zeros(count + 500, np.int32)
    spec = a_spec(seed=42, **sampling)
    found: list[int] = []
    for first in range(1, count, batch):
        steps = [a_step(zeros[:position]) for position in range(first, first + batch)]
        found += sampler.draw(torch.tensor(logits).expand(batch, -1), steps, [spec] * batch)
    return torch.tensor(found)


def shares(tokens: torch.Tensor, vocab: int) -> torch.Tensor:
    return tokens.bincount(minlength=vocab) / len(tokens)


logits_of = st.lists(st.floats(-8, 8, width=32), min_size=VOCAB, max_size=VOCAB)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_k=st.sampled_from([-1, 1, 3, 100]),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.2]),
    repetition_penalty=st.sampled_from([0.7, 1.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, 0.6]),
    presence_penalty=st.sampled_from([-0.5, 0.0]),
)
rows = st.tuples(
    logits_of, samplings, st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9), st.integers(0, (1 << 63) - 1)
)


@given(st.lists(rows, min_size=1, max_size=6))
@settings(max_examples=60)
def test_a_draw_does_not_depend_on_the_rest_of_the_batch(batch):
    logits = torch.tensor([row[0] for row in batch])
    specs = [SampleSpec(sampling, seed, prompt_length=1) for _, sampling, _, seed in batch]
    steps = [a_step(tokens, key) for key, (_, _, tokens, _) in enumerate(batch)]
    together = a_sampler().draw(logits, steps, specs)
    alone = [a_sampler().draw(logits[i : i + 1], [steps[i]], [specs[i]])[0] for i in range(len(batch))]
    assert together == alone


@given(rows)
@settings(max_examples=60)
def test_a_draw_does_not_depend_on_what_was_drawn_before(row):
    logits, sampling, tokens, seed = row
    spec = SampleSpec(sampling, seed, prompt_length=1)
    veteran = a_sampler()
    for end in range(1, len(tokens) + 1):
        last = veteran.draw(torch.tensor([logits]), [a_step(tokens[:end])], [spec])
    assert last == a_sampler().draw(torch.tensor([logits]), [a_step(tokens)], [spec])


def test_seed_and_position_are_the_randomness():
    flat = [0.0] * 1000
    base = draw(flat, seed=1, position=5)
    assert draw(flat, seed=1, position=5) == base
    assert len({base, draw(flat, seed=2, position=5), draw(flat, seed=1, position=6)}) == 3


def test_tokens_fall_as_often_as_the_distribution_says():
    logits = [2.0, 1.0, 0.0, -1.0, -3.0]
    expected = torch.tensor(logits).div(0.8).softmax(-1)
    assert torch.allclose(shares(draws(logits, 40_000, temperature=0.8), 5), expected, atol=0.012)


def test_top_k_leaves_the_k_best_in_their_proportions():
    found = shares(draws([3.0, 1.0, 2.5, 0.0], 20_000, top_k=2), 4)
    expected = torch.tensor([3.0, 2.5]).softmax(-1)
    assert torch.allclose(found, torch.tensor([expected[0], 0, expected[1], 0]), atol=0.015)


def test_top_p_leaves_the_smallest_set_that_reaches_it():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert set(draws(logits, 3000, top_p=0.79).tolist()) == {0, 1}
    assert set(draws(logits, 3000, top_p=0.81).tolist()) == {0, 1, 2}
    assert set(draws(logits, 3000, top_p=0.01).tolist()) == {0}


def test_min_p_is_relative_to_the_best():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert set(draws(logits, 3000, min_p=0.25).tolist()) == {0, 1, 2}


def test_filters_see_the_tempered_distribution():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().tolist()
    assert set(draws(logits, 3000, top_p=0.5).tolist()) == {0, 1}
    assert set(draws(logits, 3000, top_p=0.5, temperature=0.1).tolist()) == {0}


def test_top_p_one_cuts_nothing_where_the_sum_rounds_to_one_early():
    logits = [20.0, *[0.0] * 3]
    found = draws(logits, 2000, top_p=1.0, top_k=4, temperature=100.0)
    assert set(found.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"top_k": 1}, {"temperature": 1e-30}, {"top_p": 1e-9}])
def test_greedy_by_any_name_takes_the_best(sampling):
    assert draw([0.0, 5.0, 4.9, -1.0], **sampling) == 1


def test_a_tie_goes_to_the_lowest_id():
    assert draw([0.0, 5.0, 5.0, 5.0], temperature=0.0) == 1


def test_logits_are_left_as_they_are():
    logits = torch.randn(1, VOCAB)
    before = logits.clone()
    spec = a_spec(prompt_length=0, stop_ids=(3,), min_new_tokens=9, repetition_penalty=1.5, presence_penalty=1.0)
    a_sampler().draw(logits, [a_step([1, 2])], [spec])
    assert torch.equal(logits, before)
