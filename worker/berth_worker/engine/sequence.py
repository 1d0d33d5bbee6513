"""One admitted or waiting request as the scheduler sees it: ids, how far their KV goes, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    reuse: int = 0
    """Leading ids that the session's slot may have KV of."""
    recompute: bool = False
    """Compute KV of the reused prefix again, because the logprobs inside it are asked for."""
    prompt_logprobs_from: int | None = None
    holding: Holding | None = None
    computed: int = 0
    """Ids that have been through the model since admission, or were inherited."""
    cached: int = field(default=0)
    """KV reused at the first admission."""

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
        """Known ids without KV."""
        return self.length - self.computed

    @property
    def decoding(self) -> bool:
        """One id is left to compute: the one sampled last."""
        return self.extend_length == 1

    @property
    def ids(self) -> NDArray[np.int32]:
        """The known ids (a view)."""
        return self.buffer[: self.length]

    def append(self, token: int) -> None:
        """Add a sampled id."""
        self.buffer[self.length] = token
        self.length += 1

    def restart_from(self, holding: Holding, prefix: int) -> None:
        """Take `holding`, which has KV of the first `prefix` ids."""
        self.holding = holding
        self.cached = prefix
        self.computed = 0 if self.recompute else prefix


@dataclass(slots=True, frozen=True)
class Work:
    """A sequence and the step it takes in the coming forward pass."""

    sequence: Sequence
    step: SequenceStep
