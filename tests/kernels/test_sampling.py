"""Promise 7, in every backend: a draw is a pure function of logits, seed and position, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from berth_kernels.ops import Draw
from berth_kernels.ops_reference import ReferenceOps

VOCAB = 12
SEEDS = st.integers(0, (1 << 63) - 1)

logits_of = st.lists(st.floats(-8, 8, width=32), min_size=VOCAB, max_size=VOCAB)
draws_of = st.builds(
    Draw,
    seed=SEEDS,
    position=st.integers(0, 1 << 20),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_k=st.sampled_from([-1, 1, 3, 100]),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.2]),
)


def sample(ops, logits: list[float], **draw) -> int:
    return int(ops.sample(torch.tensor([logits]), [Draw(**{"seed": 0, "position": 1} | draw)]))


def shares(ops, logits: list[float], count: int, **draw) -> torch.Tensor:
    """How often each token falls at `count` positions of one session, whose logits never change."""
    draws = [Draw(42, position, **draw) for position in range(count)]
    tokens = ops.sample(torch.tensor(logits).expand(count, -1), draws)
    return tokens.bincount(minlength=len(logits)) / count


def the_kept(ops, logits: list[float], count: int = 40, **draw) -> set[int]:
    return set(shares(ops, logits, count, **draw).nonzero()[:, 0].tolist())


@given(st.lists(st.tuples(logits_of, draws_of), min_size=1, max_size=6))
@settings(max_examples=15)
def test_a_draw_does_not_depend_on_the_rest_of_the_batch(ops, batch):
    logits, draws = torch.tensor([row[0] for row in batch]), [row[1] for row in batch]
    together = ops.sample(logits, draws)
    alone = [ops.sample(logits[row : row + 1], draws[row : row + 1]) for row in range(len(batch))]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("vocab", [1, 1024, 2500])
def test_every_backend_draws_the_same_tokens(ops, vocab):
    generator = torch.Generator().manual_seed(vocab)
    draws = [
        Draw(seed, 7 * seed, temperature, top_k, top_p, min_p)
        for seed, (temperature, top_k, top_p, min_p) in enumerate(
            (temperature, top_k, top_p, min_p)
            for temperature in (0.0, 0.3, 1.5)
            for top_k in (-1, 1, 40)
            for top_p in (0.2, 0.95, 1.0)
            for min_p in (0.0, 0.05)
        )
    ]
    logits = 4 * torch.randn(len(draws), vocab, generator=generator)
    assert torch.equal(ops.sample(logits, draws), ReferenceOps().sample(logits, draws))


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=2, max_size=40), st.integers(2, 9), SEEDS)
@settings(max_examples=15)
def test_of_tokens_that_tie_the_lower_ids_are_kept(ops, logits, top_k, seed):
    kept = sorted(range(len(logits)), key=lambda token: (-logits[token], token))[:top_k]
    others = [value if token in kept else float("-inf") for token, value in enumerate(logits)]
    assert sample(ops, logits, seed=seed, top_k=top_k) == sample(ops, others, seed=seed)


def test_seed_and_position_are_the_randomness(ops):
    flat = [0.0] * 1000
    base = sample(ops, flat, seed=1, position=5)
    assert sample(ops, flat, seed=1, position=5) == base
    assert len({base, sample(ops, flat, seed=2, position=5), sample(ops, flat, seed=1, position=6)}) == 3


def test_tokens_fall_as_often_as_the_distribution_says(ops):
    logits = [2.0, 1.0, 0.0, -1.0, -3.0]
    expected = torch.tensor(logits).div(0.8).softmax(-1)
    assert torch.allclose(shares(ops, logits, 800, temperature=0.8), expected, atol=0.04)


def test_top_k_leaves_the_k_best_in_their_proportions(ops):
    expected = torch.tensor([3.0, 2.5]).softmax(-1)
    found = shares(ops, [3.0, 1.0, 2.5, 0.0], 150, top_k=2)
    assert torch.allclose(found, torch.tensor([expected[0], 0, expected[1], 0]), atol=0.1)


def test_top_p_leaves_the_smallest_set_that_reaches_it(ops):
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert the_kept(ops, logits, top_p=0.79) == {0, 1}
    assert the_kept(ops, logits, top_p=0.81) == {0, 1, 2}
    assert the_kept(ops, logits, top_p=0.01) == {0}
    assert the_kept(ops, [0.0] * 8, top_p=0.3) == {0, 1, 2}


def test_min_p_is_relative_to_the_best(ops):
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert the_kept(ops, logits, min_p=0.25) == {0, 1, 2}


def test_filters_see_the_tempered_distribution(ops):
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().tolist()
    assert the_kept(ops, logits, top_p=0.5) == {0, 1}
    assert the_kept(ops, logits, top_p=0.5, temperature=0.1) == {0}


def test_top_p_one_cuts_nothing_where_the_sum_rounds_to_one_early(ops):
    assert the_kept(ops, [20.0, *[0.0] * 3], top_p=1.0, top_k=4, temperature=100.0) == {0, 1, 2, 3}


def test_what_is_impossible_is_never_drawn(ops):
    logits = [float("-inf"), 0.0, float("-inf"), 0.0]
    assert the_kept(ops, logits) == {1, 3}
    assert the_kept(ops, logits, top_k=3, min_p=0.1) == {1, 3}


@pytest.mark.parametrize("draw", [{"temperature": 0.0}, {"top_k": 1}, {"temperature": 1e-30}, {"top_p": 1e-9}])
def test_greedy_by_any_name_takes_the_best(ops, draw):
    assert sample(ops, [0.0, 5.0, 4.9, -1.0], **draw) == 1


def test_a_greedy_tie_goes_to_the_lowest_id(ops):
    assert sample(ops, [0.0, 5.0, 5.0, 5.0], temperature=0.0) == 1
    assert sample(ops, [0.0] * 3000 + [5.0] * 2000, temperature=0.0) == 3000


def test_logits_are_left_as_they_are(ops):
    logits = torch.randn(2, VOCAB)
    before = logits.clone()
    ops.sample(logits, [Draw(1, 1, 0.7, 5, 0.9, 0.1), Draw(2, 2, 0.0)])
    assert torch.equal(logits, before)


def test_a_row_without_a_draw_is_refused(ops):
    with pytest.raises(ValueError, match="2 rows of logits and 1 draws"):
        ops.sample(torch.zeros(2, VOCAB), [Draw(0, 0)])
