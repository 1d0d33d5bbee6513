"""What callers ask of the engine, and what they hear back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from berth_api.wire import Aborted, Finished, Started, TokenLogprob, Tokens
from berth_worker.sessions.branches import PLAIN
from berth_worker.sessions.history import PACKED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from berth_api.wire import FinishReason, Sampling
    from berth_worker.engine.answer import Answer
    from berth_worker.engine.batch import Sampled
    from berth_worker.engine.sequence import Sequence
    from berth_worker.sessions.branches import Branch
    from berth_worker.sessions.fence import Fence
    from berth_worker.sessions.history import History
    from berth_worker.sessions.native import NativeTurn


@dataclass(frozen=True, slots=True)
class Generate:
    """A native request: ids (int32), with or without a session of the worker's own."""

    rid: str
    input_ids: NDArray[np.int32]
    sampling: Sampling
    seed: int
    session_id: str | None = None
    return_logprob: bool = False
    logprob_start: int | None = None
    """First position of the full prompt whose input logprobs are asked for; None: output logprobs only."""
    top_logprobs: int = 0
    branch: Branch = PLAIN
    """Where in that session it goes."""


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Input logprobs of `ids`, the prompt from where they were asked for; the first has none."""

    ids: list[int]
    logprobs: list[float | None]
    top: list[list[tuple[float, int]]]


Event = Started | Tokens | PromptLogprobs | Finished | Aborted


class Sink(Protocol):
    """Where a request's events go, in order; the last is `Finished` or `Aborted`."""

    def put(self, event: Event) -> None:
        """Take an event. Never blocks."""


@dataclass(frozen=True, slots=True)
class GatewayTurn:
    """What is special about a gateway's turn: the fence it holds and the history it began from."""

    uid: str
    turn: str
    fence: Fence
    parent: History


@dataclass(slots=True, eq=False)
class Live:
    """A request between acceptance and its last event."""

    rid: str
    sequence: Sequence
    answer: Answer
    sink: Sink
    native: NativeTurn | None = None
    turn: GatewayTurn | None = None
    accepted_at: float = 0.0
    """By the core's clock, in seconds."""
    started: bool = False
    prompt_logprobs: list[float] = field(default_factory=list)
    prompt_top: list[list[tuple[float, int]]] = field(default_factory=list)

    def replay(self) -> FinishReason | None:
        """Push the resumed output ids, showing nothing; return the reason if the turn ended with one of them."""
        for token in self.sequence.ids[self.sequence.sample.prompt_length :].tolist():
            finish = self.answer.push(token).finish
            if finish is not None:
                return finish
        return None

    def extended(self) -> History | None:
        """Return the history under which a gateway's turn is pending; None for a native request."""
        if self.turn is None:
            return None
        ids = self.sequence.ids[len(self.turn.parent.ids) :]
        return self.turn.parent.extend([ids.astype(PACKED).tobytes()])

    def logprobs(self, sampled: Sampled) -> list[TokenLogprob] | None:
        """Return what to tell of the sampled token, None if nobody asked."""
        if not self.sequence.sample.return_logprob or sampled.token is None or sampled.logprob is None:
            return None
        return [TokenLogprob(sampled.logprob, sampled.token, sampled.top)]
