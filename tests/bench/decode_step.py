"""One decode step on the CPU: a 100M Llama in bfloat16 beside the time that reading its weights and KV takes.

    python tests/bench/decode_step.py

The model is random: what it says means nothing, what it costs is what a trained one of its shape costs. The floor is a
sum by torch, with the same threads, over as many bytes as the step reads. Below: where a step's time goes, by what the
decoder calls, and what the worker adds around it until a client has the token.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet")]

from interleaved import RUNS, interleaved, middle, ratio  # noqa: E402

from berth_api.wire import Sampling  # noqa: E402
from berth_kernels.interface import Kernels  # noqa: E402
from berth_kernels.select import select  # noqa: E402
from berth_worker.engine.batch import SampleSpec, SequenceStep  # noqa: E402
from berth_worker.engine.runner import TorchRunner  # noqa: E402
from berth_worker.engine.sampler import Sampler  # noqa: E402
from berth_worker.models.config import ModelConfig, load_config  # noqa: E402
from berth_worker.models.loader import load_weights  # noqa: E402
from berth_worker.models.memory import Memory  # noqa: E402
from berth_worker.models.weights import Weights, places  # noqa: E402
from fleetkit.models import write_random_llama  # noqa: E402 - importable only from here on
from fleetkit.native import lone_worker  # noqa: E402
from fleetkit.table import table  # noqa: E402

SHAPE = {"layers": 12, "hidden": 768, "heads": 12, "kv_heads": 4, "inner": 2048, "vocab": 16384}
BATCHES = ((1, 256), (1, 2048), (1, 6144), (4, 256), (8, 256), (8, 2048))
"""Sessions, and the history that each has."""
PAGE, POSITIONS = 16, 8 * 2112
STEPS = 200
"""Whose parts are added up."""
GREEDY = Sampling(temperature=0)
TOKENS = 128
"""That a client waits for, one by one."""


class Watched:
    """Passes calls on and adds up their seconds by name, those of a plan as well."""

    def __init__(self, inner: Any, spent: Counter[str]) -> None:
        self._inner, self._spent = inner, spent

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._inner, name)
        if not callable(asked):
            return asked

        def act(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = asked(*args, **options)
            self._spent[name] += time.perf_counter() - began  # type: ignore[assignment]
            return Watched(result, self._spent) if name == "plan" else result

        self.__dict__[name] = act
        return act


async def measure() -> dict[str, Any]:
    """Return the milliseconds of each run of each batch, the parts of a step, and a client's wait for a token."""
    with tempfile.TemporaryDirectory(prefix="berth-step-") as folder:
        model = write_random_llama(Path(folder) / "model", **SHAPE)
        found = _steps(model)
        args = ["--dtype", "bfloat16", "--threads", str(found["threads"]), "--slots", "1", "--max-total-tokens", "1024"]
        async with lone_worker(model, args, Path(folder)) as worker:
            found["client_ms"] = [await _wait(worker) for _ in range(RUNS)]
    return found


def _steps(model: Path) -> dict[str, Any]:
    config = load_config(model)
    weights = load_weights(model, config, torch.bfloat16)
    read = sum(place.nbytes for place in places(config, weights).values()) - weights.embedding.nbytes
    kernels = {name: select(name) for name in ("auto", "reference")}
    runners = {name: _runner(config, weights, own) for name, own in kernels.items()}
    rows = []
    for sessions, history in BATCHES:
        print(f"  {sessions} x {history}", flush=True)
        floor = read + sessions * history * config.kv_bytes_per_token(2)
        flat = Memory(torch.float32).new(floor // 4).fill_(1)
        batch = _batch(sessions, history)
        acts = {name: partial(runner.step, batch) for name, runner in runners.items()}
        ms = interleaved({"read": flat.sum, **acts})
        rows.append({"sessions": sessions, "history": history, "read_bytes": floor, "ms": ms})
    return {
        "threads": torch.get_num_threads(),
        "kernels": kernels["auto"].name,
        "parameters": sum(place.numel() for place in places(config, weights).values()),
        "rows": rows,
        "parts_us": _parts(config, weights, kernels["auto"]),
    }


def _runner(config: ModelConfig, weights: Weights, kernels: Kernels) -> TorchRunner:
    return TorchRunner(config, weights, kernels, page_size=PAGE, num_pages=POSITIONS // PAGE)


def _batch(sessions: int, history: int) -> list[SequenceStep]:
    """Return decodes over KV that nobody wrote: zeros are read no faster than others."""
    rng = np.random.default_rng(1)
    pages = rng.permutation(POSITIONS // PAGE).astype(np.int32)
    count = -(-(history + 1) // PAGE)
    tokens = rng.integers(0, SHAPE["vocab"], history + 1).astype(np.int32)
    spec = SampleSpec(GREEDY, seed=1, prompt_length=history)
    return [
        SequenceStep(key, tokens, history, history + 1, pages[key * count : (key + 1) * count], spec)
        for key in range(sessions)
    ]


def _parts(config: ModelConfig, weights: Weights, kernels: Kernels) -> dict[str, float]:
    """Return the microseconds of a step of one session by what is called; `rest` is what lies between the calls."""
    spent: Counter[str] = Counter()
    runner = _runner(config, weights, Watched(kernels, spent))
    [step] = batch = _batch(*BATCHES[0])
    logits, sampler = torch.randn(1, config.vocab_size), Sampler(config.vocab_size)
    runner.step(batch)
    spent.clear()
    whole = draw = 0.0
    for _ in range(STEPS):
        began = time.perf_counter()
        runner.step(batch)
        ended = time.perf_counter()
        assert step.sample is not None
        sampler.draw(logits, batch, [step.sample])
        whole, draw = whole + ended - began, draw + time.perf_counter() - ended
    parts = {**spent, "sampler": draw}
    parts["rest"] = whole - sum(parts.values())
    return {name: 1e6 * seconds / STEPS for name, seconds in sorted(parts.items(), key=lambda item: -item[1])}


async def _wait(worker: Any) -> float:
    """Return the milliseconds between two tokens of a stream."""
    sampling = {"max_new_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    heard = await worker.stream({"input_ids": list(range(BATCHES[0][1])), "sampling_params": sampling})
    return 1000 * (heard.total_s - heard.first_s) / (len(heard.ids) - 1)


def show(found: dict[str, Any]) -> str:
    where = f"{found['parameters'] / 1e6:.0f}M parameters, bfloat16, {found['kernels']}, {found['threads']} threads"
    rows = [
        (
            f"{row['sessions']} x {row['history']}",
            middle(row["ms"]["auto"]),
            middle(row["ms"]["read"]),
            ratio(row["ms"]["auto"], row["ms"]["read"]),
            ratio(row["ms"]["reference"], row["ms"]["auto"]),
        )
        for row in found["rows"]
    ]
    header = ("sessions x history", "step ms", "reading ms", "step / reading", "reference / step")
    steps = table(f"A decode step ({where}). Medians of {RUNS} runs (least … most)", header, rows)
    parts = [(name, each, f"{each / sum(found['parts_us'].values()):.1%}") for name, each in found["parts_us"].items()]
    shares = table("Where a step of one session goes", ("part", "µs", "share"), parts)
    wait = middle(found["client_ms"])
    step = middle(found["rows"][0]["ms"]["auto"])
    around = [("step", step), ("scheduler, detokenizer, HTTP", wait - step), ("a client's wait for a token", wait)]
    return "\n".join((steps, shares, table("From step to client", ("one session", "ms"), around)))


def main() -> int:
    found = asyncio.run(measure())
    print(show(found))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
