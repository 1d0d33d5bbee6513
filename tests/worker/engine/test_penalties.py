"""Penalties follow from the tokens alone, however they came in."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from berth_api.wire import Sampling
from berth_worker.engine.batch import SampleSpec, SequenceStep
from berth_worker.engine.penalties import PenaltyBook

VOCAB = 8
LOGITS = [3.0, -2.0, 0.5, -0.5, 1.0, 0.0, -4.0, 2.0]


def step_of(tokens: list[int], key: int = 1) -> SequenceStep:
    return SequenceStep(key, np.array(tokens, np.int32), len(tokens) - 1, len(tokens), np.zeros(0, np.int32), None)


def penalised(book: PenaltyBook, tokens: list[int], spec: SampleSpec, key: int = 1) -> list[float]:
    return book.apply(torch.tensor([LOGITS]), [step_of(tokens, key)], [spec])[0].tolist()


def by_hand(tokens: list[int], spec: SampleSpec) -> list[float]:
    sampling, output, result = spec.sampling, tokens[spec.prompt_length :], []
    for token, logit in enumerate(LOGITS):
        if token in tokens:
            factor = sampling.repetition_penalty
            logit = logit / factor if logit > 0 else logit * factor  # noqa: PLW2901
        logit -= sampling.frequency_penalty * output.count(token)  # noqa: PLW2901
        result.append(logit - sampling.presence_penalty * (token in output))
    return torch.tensor(result).tolist()


tokens_of = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=20)


@given(tokens_of, st.integers(0, 20), st.lists(st.integers(1, 20), max_size=5))
def test_counts_kept_between_steps_equal_counts_made_at_once(tokens, prompt, stops):
    sampling = Sampling(frequency_penalty=0.5, presence_penalty=0.25, repetition_penalty=2.0)
    spec = SampleSpec(sampling, seed=0, prompt_length=min(prompt, len(tokens)))
    book = PenaltyBook(VOCAB)
    for stop in sorted(stops):
        penalised(book, tokens[: min(stop, len(tokens))], spec)
    assert penalised(book, tokens, spec) == by_hand(tokens, spec)


def test_the_prompt_counts_for_the_repetition_penalty_alone():
    spec = SampleSpec(Sampling(frequency_penalty=1.0, presence_penalty=1.0, repetition_penalty=2.0), 0, prompt_length=2)
    assert penalised(PenaltyBook(VOCAB), [0, 1], spec) == [1.5, -4.0, *LOGITS[2:]]


def test_requests_do_not_share_counts_and_a_forgotten_one_starts_anew():
    spec = SampleSpec(Sampling(presence_penalty=1.0), 0, prompt_length=0)
    book = PenaltyBook(VOCAB)
    assert penalised(book, [0], spec, key=1)[0] == 2.0
    assert penalised(book, [1], spec, key=2)[:2] == [3.0, -3.0]
    book.forget(1)
    assert penalised(book, [1], spec, key=1)[:2] == [3.0, -3.0]


def test_stop_ids_are_out_of_reach_below_min_new_tokens():
    spec = SampleSpec(Sampling(min_new_tokens=2), 0, prompt_length=1, stop_ids=(0, 7, 9999))
    book = PenaltyBook(VOCAB)
    for tokens in ([5], [5, 5]):
        found = penalised(book, tokens, spec)
        assert [token for token, value in enumerate(found) if value == float("-inf")] == [0, 7]
    assert penalised(book, [5, 5, 5], spec) == LOGITS


def test_nothing_is_copied_where_nothing_applies():
    logits = torch.tensor([LOGITS])
    spec = SampleSpec(Sampling(), 0, prompt_length=1, stop_ids=(1,))
    assert PenaltyBook(VOCAB).apply(logits, [step_of([1])], [spec]) is logits
