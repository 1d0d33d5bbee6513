"""llama.cpp through its C interface: a sequence of the context's KV cache a session, as its server's slots are.

All that is to be computed goes into one batch a step, decodes first and then as much prompt as fits, as the server has
it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import llama_cpp as lib
import numpy as np
from conversations import Turn
from host import Setup, main

GGUF = "model.gguf"


@dataclass
class Session:
    """One sequence. `last` is the newest output id, whose KV comes with the next turn."""

    sequence: int
    length: int = 0
    last: list[int] = field(default_factory=list)


@dataclass
class Running:
    """A turn under way: ids still to be computed, outputs still to come."""

    session: Session
    pending: list[int]
    left: int


class LlamaCpp:
    version = lib.__version__

    def __init__(self, setup: Setup) -> None:
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(str(setup.model / GGUF).encode(), lib.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {setup.model / GGUF}")
        self._vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        terms = lib.llama_context_default_params()
        terms.n_ctx, terms.n_seq_max, terms.kv_unified = setup.kv_tokens, setup.sessions, True
        terms.n_batch = terms.n_ubatch = setup.chunk
        terms.n_threads = terms.n_threads_batch = setup.threads
        self._context = lib.llama_init_from_model(self._model, terms)
        if not self._context:
            raise RuntimeError("llama.cpp made no context")
        self._chunk = setup.chunk
        self._batch = lib.llama_batch_init(setup.chunk, 0, 1)
        self._free = list(range(setup.sessions))
        self._sessions: dict[str, Session] = {}

    def turns(self, turns: Sequence[Turn]) -> Iterator[tuple[str, list[int]]]:
        running = {}
        for turn in turns:
            if turn.session not in self._sessions:
                self._sessions[turn.session] = Session(self._free.pop())
            session = self._sessions[turn.session]
            running[turn.session] = Running(session, session.last + turn.ids, turn.new)
        while running:
            for name, token in self._step(running):
                yield name, [token]

    def close(self, session: str) -> None:
        closed = self._sessions.pop(session)
        lib.llama_memory_seq_rm(lib.llama_get_memory(self._context), closed.sequence, -1, -1)
        self._free.append(closed.sequence)

    def _step(self, running: dict[str, Running]) -> list[tuple[str, int]]:
        """Compute one batch; return the ids it gave, and drop the turns that are done."""
        self._batch.n_tokens = 0
        rows = {}
        for name, turn in sorted(running.items(), key=lambda one: len(one[1].pending)):
            now = turn.pending[: self._chunk - self._batch.n_tokens]
            turn.pending = turn.pending[len(now) :]
            for token in now:
                self._add(turn.session, token)
            if now and not turn.pending:
                rows[name] = self._batch.n_tokens - 1
                self._batch.logits[rows[name]] = 1
        if status := lib.llama_decode(self._context, self._batch):
            raise RuntimeError(f"llama_decode: {status}")
        found = [(name, self._greedy(row)) for name, row in rows.items()]
        for name, token in found:
            turn = running[name]
            turn.left -= 1
            turn.pending = turn.session.last = [token]
            if not turn.left:
                del running[name]
        return found

    def _add(self, session: Session, token: int) -> None:
        batch, row = self._batch, self._batch.n_tokens
        batch.token[row], batch.pos[row], batch.logits[row] = token, session.length, 0
        batch.n_seq_id[row], batch.seq_id[row][0] = 1, session.sequence
        session.length += 1
        batch.n_tokens += 1

    def _greedy(self, row: int) -> int:
        logits = lib.llama_get_logits_ith(self._context, row)
        pointer = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float))
        return int(np.ctypeslib.as_array(pointer, (self._vocabulary,)).argmax())


if __name__ == "__main__":
    main(LlamaCpp)
