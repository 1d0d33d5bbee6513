"""One admitted or waiting request as the scheduler sees it: ids, how far their KV goes, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from berth_worker.cache.kv import Holding
    from berth_worker.cache.sessions import SessionKey
    from berth_worker.engine.batch import SampleSpec, SequenceStep


@dataclass(slots=True, eq=False)
class Sequence:
    """A request's ids and its KV. Known ids (prompt, resumed and sampled ones) are `buffer[:length]`.

    Prefill and decode are one thing: compute KV of what is known and lacks it; when nothing is left, sample.
    """

    key: int
    """Order of arrival; the runner's key too."""
    buffer: NDArray[np.int32]
    """int32, `limit` long."""
    length: int
    sample: SampleSpec
    session: SessionKey | None = None
    history: int = 0
    """Leading ids that are turns of the session's before this one."""
    reuse: int = 0
    """Leading ids that the session's slot may have KV of."""
    prompt_logprobs_from: int | None = None
    """First position whose logprob is asked for and not yet told."""
    recompute: bool = False
    """Go back for those logprobs even where there is KV: the model reads it again and writes none."""
    holding: Holding | None = None
    computed: int = 0
    """Ids that have been through the model since admission, or were inherited."""
    cached: int = 0
    """Ids of the prompt whose KV was there at the first admission."""
    admitted: bool = False
    """It was, at least once."""
    retracted: bool = False
    """It had to give its KV away, at least once."""
    unpublished: bool = False
    """It was admitted from nothing, and the tree has yet to get its prompt."""
    sampled: bool = False
    """It produced a token since its last admission."""

    @classmethod
    def create(cls, key: int, known: NDArray[np.int32], limit: int, sample: SampleSpec) -> Sequence:
        """Return a sequence of the ids `known` that may grow to `limit` ids."""
        buffer = np.empty(max(limit, len(known)), np.int32)
        buffer[: len(known)] = known
        return cls(key, buffer, len(known), sample)

    @property
    def limit(self) -> int:
        """The most ids this sequence can come to."""
        return len(self.buffer)

    @property
    def extend_length(self) -> int:
        """Known ids that have yet to go through the model."""
        return self.length - self.computed

    @property
    def committed(self) -> int:
        """Leading ids with KV."""
        return self.holding.committed if self.holding is not None else 0

    @property
    def decoding(self) -> bool:
        """One id is left to compute: the one sampled last."""
        return self.extend_length == 1

    @property
    def ids(self) -> NDArray[np.int32]:
        """The known ids (a view)."""
        return self.buffer[: self.length]

    @property
    def prompt(self) -> NDArray[np.int32]:
        """History and input (a view)."""
        return self.buffer[: self.sample.prompt_length]

    def append(self, token: int) -> None:
        """Add a sampled id."""
        self.buffer[self.length] = token
        self.length += 1
        self.sampled = True

    def admit(self, holding: Holding, *, inherited: bool) -> None:
        """Work on `holding`: the session's slot (`inherited`), or a new one with what the tree knows of the ids."""
        self.holding, self.computed = holding, holding.committed
        if self.recompute and self.prompt_logprobs_from is not None:
            self.computed = min(self.computed, self.prompt_logprobs_from - 1)
        if not self.admitted:
            self.cached = min(holding.committed, self.sample.prompt_length)
        self.admitted = True
        self.unpublished, self.sampled = not inherited, False

    def retract(self) -> None:
        """Its KV is gone; it waits again, with the ids it has."""
        self.holding, self.computed, self.retracted = None, 0, True


@dataclass(slots=True, frozen=True)
class Work:
    """A sequence and the step it takes in the coming forward pass."""

    sequence: Sequence
    step: SequenceStep
