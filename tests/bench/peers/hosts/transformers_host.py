"""transformers, in two ways: `generate` with the cache of earlier turns, or its continuous batching.

The first keeps one cache for the sessions that speak together; they must then be equally long, which a server could not
ask of its users: it is what transformers can do at best. The second (`--batching`) is what `generate_batch` is made of:
each request carries the whole history, and blocks of it that were computed before are shared.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator, Sequence

os.environ |= {"HF_HUB_OFFLINE": "1"}

import torch
import transformers
from conversations import Turn
from host import Setup, main
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, DynamicCache, GenerationConfig
from transformers.generation.streamers import BaseStreamer

PAGE = 32


def load(setup: Setup) -> torch.nn.Module:
    torch.set_num_threads(setup.threads)
    model = AutoModelForCausalLM.from_pretrained(setup.model, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
    return model.eval()


class Streamer(BaseStreamer):
    """Hands each step's ids, one a sequence, to another thread; None at the end."""

    def __init__(self) -> None:
        self.steps: queue.SimpleQueue[list[int] | BaseException | None] = queue.SimpleQueue()
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt:
            self.steps.put(value.flatten().tolist())
        self._prompt = False

    def end(self) -> None:
        self.steps.put(None)


class Generate:
    """`ids` and caches by the names of the sessions that speak together."""

    version = transformers.__version__

    def __init__(self, setup: Setup) -> None:
        self._model = load(setup)
        self._ids: dict[tuple[str, ...], torch.Tensor] = {}
        self._caches: dict[tuple[str, ...], DynamicCache] = {}

    def turns(self, turns: Sequence[Turn]) -> Iterator[tuple[str, list[int]]]:
        if not turns:
            return
        names = tuple(turn.session for turn in turns)
        ids = torch.tensor([turn.ids for turn in turns])
        if names in self._ids:
            ids = torch.cat([self._ids[names], ids], dim=1)
        cache = self._caches.setdefault(names, DynamicCache(config=self._model.config))
        streamer = Streamer()

        def generate() -> None:
            try:
                self._ids[names] = self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    past_key_values=cache,
                    max_new_tokens=turns[0].new,
                    streamer=streamer,
                )
            except BaseException as error:
                streamer.steps.put(error)

        thread = threading.Thread(target=generate)
        thread.start()
        while (step := streamer.steps.get()) is not None:
            if isinstance(step, BaseException):
                raise step
            yield from ((name, [token]) for name, token in zip(names, step, strict=True))
        thread.join()

    def close(self, session: str) -> None:
        for names in [names for names in self._ids if session in names]:
            del self._ids[names], self._caches[names]


class Batching:
    version = transformers.__version__

    def __init__(self, setup: Setup) -> None:
        model = load(setup)
        terms = ContinuousBatchingConfig(
            page_size=PAGE, num_blocks=setup.kv_tokens // PAGE, max_batch_tokens=setup.chunk
        )
        self._manager = model.init_continuous_batching(continuous_batching_config=terms)
        self._manager.start()
        self._histories: dict[str, list[int]] = {}

    def turns(self, turns: Sequence[Turn]) -> Iterator[tuple[str, list[int]]]:
        running = {}
        for turn in turns:
            history = self._histories.setdefault(turn.session, [])
            history += turn.ids
            name = self._manager.add_request(list(history), max_new_tokens=turn.new, streaming=True, eos_token_id=-1)
            running[name] = (turn.session, 0)
        while running:
            output = self._manager.get_result(timeout=1)
            if output is None:
                if not self._manager.is_running():
                    raise RuntimeError("continuous batching has ended")
                continue
            session, seen = running[output.request_id]
            # Each result has all ids so far.
            ids = output.generated_tokens[seen:]
            running[output.request_id] = (session, seen + len(ids))
            self._histories[session] += ids
            if ids:
                yield session, ids
            if output.is_finished():
                del running[output.request_id]

    def close(self, session: str) -> None:
        del self._histories[session]


if __name__ == "__main__":
    batching = "--batching" in sys.argv
    if batching:
        sys.argv.remove("--batching")
    main(Batching if batching else Generate)
