"""What the scheduler hands to the runner and what comes back: the seam between bookkeeping and tensors.

The scheduler's side knows no torch; the runner's side knows no sessions. Ids and page tables cross as numpy arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from berth_api.wire import Sampling


@dataclass(slots=True)
class SampleSpec:
    """How to choose the next token of one sequence; constant over a turn.

    `seed` and the token's position in the session are the only randomness, so a rerun elsewhere draws the same.
    """

    sampling: Sampling
    seed: int
    prompt_length: int
    """Tokens before this turn's first output token (history + input)."""
    return_logprob: bool = False
    top_logprobs: int = 0
    stop_ids: tuple[int, ...] = ()
    """Ids that would end the turn (EOS unless ignored, stop ids): kept out of the draw below `min_new_tokens`."""


@dataclass(slots=True)
class SequenceStep:
    """One sequence's part of one forward pass.

    The pass takes `tokens[start:end]`, at positions `start … end - 1`, writes their KV into `pages` (see `kept`), and
    reads what lies below from there. `tokens` is a view of the request's whole buffer (int32), valid until the step
    returns and never written by the runner. `pages[i]` holds positions `i * page_size …` (int32 page ids).
    """

    key: int
    """Stable while the request lives: the runner may keep per-request state (penalty counts) under it."""
    tokens: NDArray[np.int32]
    start: int
    end: int
    pages: NDArray[np.int32]
    sample: SampleSpec | None
    """Draw the token at position `end` from the last position's logits; None for an unfinished prefill chunk."""
    prompt_logprobs_from: int | None = None
    """Also return logprobs of `tokens[i]` for i in [max(start + 1, this), end]: what input logprobs need. The entry for
    `end` exists only when the token there is known already (a chunk border inside the prompt): `sample` is None and
    `end < len(tokens)`."""
    prompt_top_logprobs: int = 0
    """How many most likely tokens go with each of them."""
    kept: int = 0
    """Positions below it keep the KV that they have, and go through the model for their logprobs only: what they have
    may be others' too, and must stay what it was when those read it."""


@dataclass(slots=True)
class Sampled:
    """The outcome for one sequence. `logprob` is of the unpenalised, untempered distribution (natural log)."""

    token: int | None = None
    logprob: float | None = None
    top: list[tuple[float, int]] = field(default_factory=list)
    prompt_logprobs: list[float] = field(default_factory=list)
    prompt_top: list[list[tuple[float, int]]] = field(default_factory=list)


class Runner(Protocol):
    """Runs the model over a paged KV pool. Called from the engine thread only."""

    vocab_size: int
    num_pages: int
    page_size: int

    def step(self, batch: list[SequenceStep]) -> list[Sampled]:
        """Run one forward pass over `batch` (prefill chunks and decodes mixed); one `Sampled` a sequence, in order."""

    def forget(self, key: int) -> None:
        """Drop what is kept for a request that ended."""
