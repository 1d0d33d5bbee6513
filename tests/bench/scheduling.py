"""What the scheduler costs a step: all of `Core.step` but the model, at batch 1, 32 and 256, on young and old sessions.

    python tests/bench/scheduling.py                  the tables
    python tests/bench/scheduling.py --profile 256    where the time goes at that batch

A core in this process, with a runner that answers at once; sessions take turns of 16 tokens in and 8 out, each of them
as soon as its last one has ended, so that ends, admissions, prefills and decodes are spread over the steps. The same
core with real models then gives the scheduler's share of a step. All times are the thread's CPU time: a step of
microseconds measured by the wall tells of the other programs on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "fleet")]

from berth_api.wire import Aborted, Finished, Sampling  # noqa: E402 - importable only from here on
from berth_worker.builtin import resolve  # noqa: E402
from berth_worker.engine.batch import Runner, Sampled, SequenceStep  # noqa: E402
from berth_worker.engine.core import Core  # noqa: E402
from berth_worker.engine.intake import Model  # noqa: E402
from berth_worker.engine.requests import Event, Generate  # noqa: E402
from berth_worker.engine.runner import TorchRunner  # noqa: E402
from berth_worker.engine.scheduler import Limits  # noqa: E402
from berth_worker.engine.tokenizer import load_tokenizer  # noqa: E402
from fleetkit.models import VOCAB, write_random_llama  # noqa: E402
from fleetkit.table import table  # noqa: E402

BATCHES = (1, 32, 256)
TURNS, INPUT, OUTPUT = 150, 16, 8
SPAN = 10
"""Turns that are measured, the first ones and the last ones."""
PAGE, CHUNK, HEADROOM = 16, 1024, 128
REAL_TURNS = 6
FULL = 0.75
"""A step counts as one of the whole batch when so much of it takes part."""


class NullRunner:
    """Knows the next token at once."""

    vocab_size = VOCAB

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages, self.page_size = num_pages, page_size
        self._answer = Sampled(token=ord("a"))

    def step(self, batch: list[SequenceStep]) -> list[Sampled]:
        return [self._answer if step.sample is not None else Sampled() for step in batch]

    def forget(self, key: int) -> None:
        """Nothing is kept."""


class Timed:
    """Another runner; seconds in its last step, and how many sequences that had."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner
        self.vocab_size, self.num_pages, self.page_size = inner.vocab_size, inner.num_pages, inner.page_size
        self.forget = inner.forget
        self.inside, self.batch = 0.0, 0

    def step(self, batch: list[SequenceStep]) -> list[Sampled]:
        began = time.thread_time()
        results = self._inner.step(batch)
        self.inside, self.batch = time.thread_time() - began, len(batch)
        return results


@dataclass
class Caller:
    """A session that takes one turn after the other; also where its events go."""

    number: int
    turns: int = 0
    in_flight: bool = False

    def put(self, event: Event) -> None:
        if isinstance(event, Finished | Aborted):
            self.in_flight = False
            self.turns += 1


@dataclass
class Sample:
    """One step: sequences, seconds of the scheduler's and of the runner's."""

    batch: int
    scheduler_s: float
    runner_s: float


@dataclass
class Drive:
    """A core under `batch` callers."""

    core: Core
    runner: Timed
    callers: list[Caller]
    accept_s: list[float] = field(default_factory=list)
    """Seconds that the acceptance of a request took, each."""

    @classmethod
    def create(cls, make: Callable[[int], Runner], batch: int, turns: int, *, mixed: bool) -> Drive:
        """Return a drive on a pool with room for everything; `make` gets the number of pages."""
        length = turns * (INPUT + OUTPUT) + HEADROOM
        runner = Timed(make(batch * -(-length // PAGE)))
        core = Core(
            runner,
            Model(load_tokenizer(resolve("berth-tiny")), "bench", VOCAB, length, frozenset(), None),
            Limits(CHUNK, batch, batch, mixed=mixed, headroom=HEADROOM),
            slots=batch,
            check="off",
            clock=time.monotonic,
        )
        callers = [Caller(number) for number in range(batch)]
        for caller in callers:
            core.open(str(caller.number), 1 << 30, None)
        return cls(core, runner, callers)

    def run(self, turns: int) -> Iterator[Sample]:
        """Take steps until every caller has had its turns. They begin spread over the steps of a turn."""
        steps = 0
        while any(caller.turns < turns for caller in self.callers):
            for caller in self.callers[: (steps + 1) * -(-len(self.callers) // OUTPUT)]:
                if not caller.in_flight and caller.turns < turns:
                    self._ask(caller)
            began = time.thread_time()
            self.core.step()
            took = time.thread_time() - began
            for sink, event in self.core.outbox:
                sink.put(event)
            self.core.outbox.clear()
            steps += 1
            yield Sample(self.runner.batch, took - self.runner.inside, self.runner.inside)

    def _ask(self, caller: Caller) -> None:
        ids = np.random.default_rng(1000 * caller.turns + caller.number).integers(0, 256, INPUT).astype(np.int32)
        sampling = Sampling(max_new_tokens=OUTPUT, temperature=0, ignore_eos=True)
        name = str(caller.number)
        request = Generate(rid=name, input_ids=ids, sampling=sampling, seed=1, session_id=name)
        began = time.thread_time()
        self.core.generate(request, caller)
        self.accept_s.append(time.thread_time() - began)
        caller.in_flight = True


def null(pages: int) -> NullRunner:
    return NullRunner(pages, PAGE)


async def measure() -> dict[str, Any]:
    """Return a row a batch and mode, and a row a model and batch."""
    rows = [_flat(batch, mixed=mixed) for batch in BATCHES for mixed in (False, True)]
    with tempfile.TemporaryDirectory(prefix="berth-scheduling-") as name:
        small = write_random_llama(Path(name) / "model")
        models = {"random Llama, 3 layers": small, "berth-tiny": resolve("berth-tiny")}
        shares = [_share(model, folder, batch) for model, folder in models.items() for batch in BATCHES]
    return {"rows": rows, "shares": shares}


def _flat(batch: int, *, mixed: bool) -> dict[str, Any]:
    """Sessions at their first turns and at their last ones, a step of these and a step of those: the same machine."""
    print(f"  batch {batch}, {'mixed passes' if mixed else 'passes of one kind'}", flush=True)
    old, young = (Drive.create(null, batch, TURNS, mixed=mixed) for _ in range(2))
    for _ in old.run(TURNS - SPAN):
        pass
    old.accept_s.clear()
    both = list(zip(young.run(SPAN), old.run(TURNS), strict=True))
    row: dict[str, Any] = {"batch": batch, "mixed": mixed}
    for name, drive, samples in zip(("young", "old"), (young, old), zip(*both, strict=True), strict=True):
        row |= {f"{name}_step_us": _full(samples, batch), f"{name}_accept_us": 1e6 * statistics.median(drive.accept_s)}
    return row


def _full(samples: Sequence[Sample], batch: int) -> float:
    """The median of the scheduler's microseconds in steps of the whole batch."""
    return 1e6 * statistics.median(each.scheduler_s for each in samples if each.batch >= FULL * batch)


def _share(model: str, folder: Path, batch: int) -> dict[str, Any]:
    print(f"  {model}, batch {batch}", flush=True)

    def load(pages: int) -> TorchRunner:
        return TorchRunner.load(folder, page_size=PAGE, num_pages=pages, dtype="float32", threads=1)

    drive = Drive.create(load, batch, REAL_TURNS, mixed=False)
    samples = [each for each in drive.run(REAL_TURNS) if each.batch >= FULL * batch]
    scheduler = statistics.median(each.scheduler_s for each in samples)
    whole = statistics.median(each.scheduler_s + each.runner_s for each in samples)
    return {"model": model, "batch": batch, "scheduler_us": 1e6 * scheduler, "step_us": 1e6 * whole}


def show(found: dict[str, Any]) -> str:
    rows = []
    for row in found["rows"]:
        young, old = row["young_step_us"], row["old_step_us"]
        name = f"{row['batch']}, mixed" if row["mixed"] else f"{row['batch']}"
        rows.append((name, young, old, old / young, old / row["batch"], row["young_accept_us"], row["old_accept_us"]))
    header = ("batch", "turn 1 µs", "turn 150 µs", "ratio", "µs a sequence", "accept, turn 1 µs", "turn 150 µs")
    flat = table("The scheduler's time a step, without the model, by the sessions' turn", header, rows)
    shares = []
    for row in found["shares"]:
        name = f"{row['model']}, batch {row['batch']}"
        shares.append((name, row["scheduler_us"], row["step_us"], f"{row['scheduler_us'] / row['step_us']:.1%}"))
    title = "Its share of a step with a model (float32, one thread)"
    return flat + "\n" + table(title, ("model", "scheduler µs", "step µs", "share"), shares)


def profile(batch: int, *, mixed: bool) -> None:
    """Print where the time of whole steps goes, on sessions that are 20 turns old at the end."""
    drive = Drive.create(null, batch, 20, mixed=mixed)
    profiler = cProfile.Profile()
    profiler.enable()
    steps = sum(1 for _ in drive.run(20))
    profiler.disable()
    print(f"{steps} steps of batch {batch}")
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(40)


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--profile", type=int, metavar="BATCH")
    flags.add_argument("--mixed", action="store_true", help="with --profile: mixed passes")
    options = flags.parse_args()
    if options.profile:
        profile(options.profile, mixed=options.mixed)
    else:
        print(show(asyncio.run(measure())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
