"""vLLM's engine in this process, without its servers: each turn is a request with the whole history, prefix cached."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

# Read when vLLM is imported. What it compiles is kept beside it, so that only its very first start compiles.
os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CACHE_ROOT": str(Path(sys.prefix) / "cache"),
    "TORCHINDUCTOR_CACHE_DIR": str(Path(sys.prefix) / "cache" / "inductor"),
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

from conversations import Turn
from host import Setup, main

PAGE = 32
"""The least that its attention on a CPU takes. Whole pages are reused."""


class Vllm:
    def __init__(self, setup: Setup) -> None:
        cores = sorted(os.sched_getaffinity(0))[: setup.threads]
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        import vllm
        from vllm.sampling_params import RequestOutputKind

        self.version = vllm.__version__
        self._engine = vllm.LLMEngine.from_engine_args(
            vllm.EngineArgs(
                model=str(setup.model),
                dtype="bfloat16",
                skip_tokenizer_init=True,
                block_size=PAGE,
                enable_prefix_caching=True,
                max_model_len=setup.context,
                max_num_seqs=setup.sessions,
                max_num_batched_tokens=setup.chunk,
                enable_chunked_prefill=True,
                # The pool's size is told by the blocks; the bytes only keep it from wanting most of the memory.
                num_gpu_blocks_override=setup.kv_tokens // PAGE,
                kv_cache_memory_bytes=1 << 30,
                disable_log_stats=True,
            )
        )
        self._sampling = lambda new: vllm.SamplingParams(
            temperature=0,
            ignore_eos=True,
            max_tokens=new,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self._histories: dict[str, list[int]] = {}
        self._number = count()

    def turns(self, turns: Sequence[Turn]) -> Iterator[tuple[str, list[int]]]:
        requests = {}
        for turn in turns:
            history = self._histories.setdefault(turn.session, [])
            history += turn.ids
            requests[name := str(next(self._number))] = turn.session
            self._engine.add_request(name, {"prompt_token_ids": list(history)}, self._sampling(turn.new))
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                session, ids = requests[output.request_id], list(output.outputs[0].token_ids)
                self._histories[session] += ids
                yield session, ids

    def close(self, session: str) -> None:
        del self._histories[session]


if __name__ == "__main__":
    main(Vllm)
