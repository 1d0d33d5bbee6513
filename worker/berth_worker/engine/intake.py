"""From what a caller sends to a request the engine can run. Checks everything, touches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from berth_api.errors import Conflict, InvalidRequest, TooLong
from berth_worker.engine.answer import Answer
from berth_worker.engine.batch import SampleSpec
from berth_worker.engine.requests import GatewayTurn, Generate, Live, Sink
from berth_worker.engine.sequence import Sequence
from berth_worker.sessions.fence import Fence
from berth_worker.sessions.gateway import Start, unpack
from berth_worker.sessions.native import NativeTurn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from berth_api.wire import Sampling, TurnRequest
    from berth_worker.engine.text import Tokenizer
    from berth_worker.sessions.native import NativeStart


@dataclass(frozen=True, slots=True)
class Model:
    """What requests are checked against. Ids are below `vocab_size`; `context` bounds history + input + output."""

    tokenizer: Tokenizer
    fingerprint: str
    vocab_size: int
    context: int
    eos_ids: frozenset[int]
    bos_id: int | None


class Intake:
    """Builds requests. Every refusal is an error of `berth_api.errors` that names the field."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def generate(self, request: Generate, start: NativeStart | None, key: int, sink: Sink) -> Live:
        """Return a native request, a turn that begins at `start` if it has a session."""
        history = start.ids if start is not None else np.empty(0, np.int32)
        input_ids = request.input_ids
        if len(history) and len(input_ids) and input_ids[0] == self._model.bos_id:
            input_ids = input_ids[1:]
        self._check(input_ids, request.sampling)
        prompt = np.concatenate([history, input_ids], dtype=np.int32)
        cap = start.session.capacity if start is not None else None
        new_tokens = self._new_tokens(len(prompt), 0, request.sampling, cap)
        shown = request.logprob_start
        if shown is not None and shown >= len(prompt):
            raise InvalidRequest(
                f"logprob_start_len is {shown}, the prompt has {len(prompt)} tokens", field="logprob_start_len"
            )
        spec = self._spec(request.sampling, request.seed, len(prompt))
        spec.return_logprob, spec.top_logprobs = request.return_logprob, request.top_logprobs
        sequence = Sequence.create(key, prompt, len(prompt) + new_tokens, spec)
        sequence.prompt_logprobs_from = None if shown is None else shown + 1
        if start is not None and start.place is None:
            name, length = start.session.id, len(history)
            sequence.session, sequence.history, sequence.reuse = ("native", name), length, length
        # Inside what a slot holds, logprobs are told from the start or not at all.
        sequence.recompute = shown is not None and (shown == 0 or not sequence.history)
        native = NativeTurn(start.session, start.place, len(prompt)) if start is not None else None
        return Live(request.rid, sequence, self._answer(request.sampling, new_tokens), sink, native=native)

    def turn(self, request: TurnRequest, start: Start, key: int, sink: Sink) -> Live:
        """Return a gateway's turn that begins at `start`. Raises `Conflict` for another model's session."""
        if request.fingerprint != self._model.fingerprint:
            raise Conflict(
                f"the session belongs to model {request.fingerprint!r}, this worker serves another",
                fingerprint=self._model.fingerprint,
            )
        parent, sampling = start.parent, request.sampling
        input_ids, resumed = unpack(request.input_ids, "input_ids"), unpack(request.resume_ids, "resume_ids")
        self._check(input_ids, sampling)
        self._check_ids(parent.ids, "history")
        self._check_ids(resumed, "resume_ids")
        known = np.concatenate([parent.ids, input_ids, resumed], dtype=np.int32)
        prompt = len(known) - len(resumed)
        new_tokens = self._new_tokens(prompt, len(resumed), sampling, request.max_tokens)
        if len(resumed) > new_tokens:
            raise InvalidRequest(f"{len(resumed)} tokens resumed, {new_tokens} possible", field="resume_ids")
        seed = request.seed if sampling.seed is None else sampling.seed
        spec = self._spec(sampling, seed, prompt)
        spec.return_logprob, spec.top_logprobs = request.logprobs, request.top_logprobs
        sequence = Sequence.create(key, known, prompt + new_tokens, spec)
        sequence.session, sequence.history, sequence.reuse = ("gateway", request.uid), len(parent.ids), start.reuse
        turn = GatewayTurn(request.uid, request.turn, Fence(request.epoch, request.attempt), parent)
        return Live(request.turn, sequence, self._answer(sampling, new_tokens), sink, turn=turn)

    def _spec(self, sampling: Sampling, seed: int, prompt: int) -> SampleSpec:
        return SampleSpec(sampling, seed, prompt, stop_ids=tuple(sorted(self._stop_ids(sampling))))

    def _answer(self, sampling: Sampling, new_tokens: int) -> Answer:
        text = self._model.tokenizer.stream(skip_special_tokens=sampling.skip_special_tokens)
        return Answer(sampling, text, self._stop_ids(sampling), new_tokens)

    def _stop_ids(self, sampling: Sampling) -> frozenset[int]:
        eos = frozenset() if sampling.ignore_eos else self._model.eos_ids
        return eos.union(sampling.stop_token_ids or ())

    def _check(self, input_ids: NDArray[np.int32], sampling: Sampling) -> None:
        if not len(input_ids):
            raise InvalidRequest("input_ids is empty", field="input_ids")
        self._check_ids(input_ids, "input_ids")
        for token in sampling.stop_token_ids or ():
            if token >= self._model.vocab_size:
                raise InvalidRequest(
                    f"stop_token_ids has {token}, the vocabulary {self._model.vocab_size} ids", field="stop_token_ids"
                )
        if sampling.min_new_tokens > sampling.max_new_tokens:
            raise InvalidRequest("min_new_tokens is above max_new_tokens", field="min_new_tokens")

    def _check_ids(self, ids: NDArray[np.int32], field: str) -> None:
        outside = (ids < 0) | (ids >= self._model.vocab_size)
        if outside.any():
            at = int(outside.argmax())
            raise InvalidRequest(
                f"{field}[{at}] is {int(ids[at])}, the vocabulary has {self._model.vocab_size} ids", field=field
            )

    def _new_tokens(self, prompt: int, resumed: int, sampling: Sampling, cap: int | None) -> int:
        """Return how many output tokens the turn may have: what it wants, or what fits behind `prompt` tokens."""
        limit = self._model.context if cap is None else min(self._model.context, cap)
        wanted = sampling.max_new_tokens
        if prompt + max(resumed, min(wanted, 1)) > limit:
            raise TooLong(
                f"history and input are {prompt} tokens, at most {limit} are possible with the output",
                field="input_ids",
                limit=limit,
            )
        return min(wanted, limit - prompt)
