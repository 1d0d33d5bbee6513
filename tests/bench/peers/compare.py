"""Berth beside other engines: the same model, the same conversations, the same two threads, in turns in one run.

    python tests/bench/peers/environments.py             first: builds the engines (minutes)
    python tests/bench/peers/compare.py                  five rounds of all engines
    python tests/bench/peers/compare.py --quick          one short round: does everything work?
    python tests/bench/peers/compare.py --write-docs     and docs/benchmarks.md with its plot, from these numbers

A round starts each engine in turn, alone, measures it and stops it, so that nothing runs beside what is measured.
Before the rounds each is started once, so that what an engine compiles at its first start is compiled. Ratios are taken
within a round. An engine that cannot be built or fails is left out, and named. Writes build/bench/peers.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(HERE / "hosts"), str(HERE.parent), str(ROOT / "tests" / "fleet")]

import checkpoint  # noqa: E402 - importable only from here on
import engines  # noqa: E402
import machine  # noqa: E402
import report  # noqa: E402
from conversations import Plan  # noqa: E402
from environments import PEERS, cache  # noqa: E402
from host import Setup  # noqa: E402

Act = Callable[[engines.Engine, Plan], Awaitable[dict[str, Any]]]
SHAPE = checkpoint.Shape()
FULL = Plan(SHAPE.vocab)
QUICK = Plan(SHAPE.vocab, lengths=(256, 1024), repeats=1, rounds=2)


def arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rounds", type=int, default=None, help="default: 5, with --quick 1")
    flags.add_argument("--engines", default=",".join(engines.NAMES), help="comma-separated (default: %(default)s)")
    flags.add_argument("--quick", action="store_true", help="shorter conversations")
    flags.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder of peers.json")
    flags.add_argument("--write-docs", action="store_true", help="write the section of docs/benchmarks.md and its plot")
    options = flags.parse_args()
    options.engines = options.engines.split(",")
    if unknown := set(options.engines) - set(engines.NAMES):
        flags.error(f"--engines: no such engine: {', '.join(sorted(unknown))}")
    if engines.BASE not in options.engines:
        flags.error(f"--engines: {engines.BASE} must be among them, all ratios are over it")
    options.rounds = options.rounds or (1 if options.quick else 5)
    if options.rounds < 1:
        flags.error("--rounds: at least 1")
    if options.quick and options.write_docs:
        flags.error("--write-docs: the page wants a whole run, not a --quick one")
    return options


def prepare() -> Path:
    """Return the folder of the model in all its forms."""
    folder = cache() / "random-llama-100m"
    checkpoint.write(folder, SHAPE)
    llama_cpp = PEERS["llama.cpp"]
    if llama_cpp.built and not (folder / "model.gguf").is_file():
        # Without its file llama.cpp fails to start, and is left out.
        subprocess.run([str(llama_cpp.python), str(HERE / "hosts" / "gguf_file.py"), str(folder)], check=False)
    return folder


async def begin(engine: engines.Engine, plan: Plan) -> dict[str, Any]:
    """Start an engine and greet it."""
    began = time.monotonic()
    await engine.start()
    ready = time.monotonic()
    greeting = plan.greeting()
    [heard] = await engine.say([greeting])
    await engine.close([greeting.session])
    return {"ready_s": ready - began, "first_answer_s": heard.at[0] - began, "ids": heard.ids}


async def measure(engine: engines.Engine, plan: Plan) -> dict[str, Any]:
    """Take one engine through the plan."""
    found = await begin(engine, plan)
    alone: dict[str, dict[str, list[float]]] = {}
    for length, turn in plan.conversation():
        [heard] = await engine.say([turn])
        check(heard.ids, turn.new)
        if length is not None:
            times = alone.setdefault(str(length), {"first_ms": [], "later_ms": []})
            times["first_ms"].append(heard.first_ms)
            times["later_ms"].append(heard.later_ms)
    await engine.close(["alone"])
    crowd = plan.crowd()
    cpu, began = machine.cpu_s(engine.pids()), time.monotonic()
    for turns in crowd:
        for turn, heard in zip(turns, await engine.say(turns), strict=True):
            check(heard.ids, turn.new)
    seconds, cpu = time.monotonic() - began, machine.cpu_s(engine.pids()) - cpu
    tokens = sum(turn.new for turns in crowd for turn in turns)
    found |= {"alone": alone, "crowd": {"seconds": seconds, "tokens": tokens, "cpu_s": cpu}}
    return found | {"peak_bytes": machine.peak_bytes(engine.pids())}


def check(ids: list[int], count: int) -> None:
    """RuntimeError unless there are so many ids, all of them of the vocabulary."""
    if len(ids) != count or not all(0 <= token < SHAPE.vocab for token in ids):
        raise RuntimeError(f"{count} ids of a vocabulary of {SHAPE.vocab} were asked for, these came: {ids}")


@dataclass
class Comparison:
    """A run under way: who is in it, and who no longer is."""

    plan: Plan
    setup: Setup
    names: list[str]
    folder: Path
    left_out: dict[str, str] = field(default_factory=dict)
    """Why, by name."""
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ceiling = machine.Ceiling(SHAPE.read_bytes, self.setup.threads)
        for name in self.names:
            needed = engines.needed(name)
            if needed and not PEERS[needed].built:
                self.left_out[name] = f"the environment of {needed} {PEERS[needed].version} is not built"

    def able(self) -> list[str]:
        return [name for name in self.names if name not in self.left_out]

    async def run(self, rounds: int) -> dict[str, Any]:
        """Return all samples: of the first start of each engine, and of each round."""
        print("first starts", flush=True)
        first = {name: await self._take(name, begin) for name in self.able()}
        found = []
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", flush=True)
            names = self.able()
            turn = number % max(1, len(names))
            found.append({name: await self._take(name, measure) for name in names[turn:] + names[:turn]})
        return {
            "plan": vars(self.plan),
            "threads": self.setup.threads,
            "kv_tokens": self.setup.kv_tokens,
            "weights": {"parameters": SHAPE.parameters, "read_bytes": SHAPE.read_bytes, "kv_bytes": SHAPE.kv_bytes},
            "versions": self.versions,
            "left_out": self.left_out,
            "first": {name: first[name] for name in self.able()},
            "rounds": [{name: each[name] for name in self.able()} for each in found],
        }

    async def _take(self, name: str, act: Act) -> dict[str, Any]:
        """Start the engine, have it measured and stop it; one that fails is left out from now on."""
        engine = engines.make(name, self.setup, self.folder)
        began, sample = time.monotonic(), {"ceiling": self._ceiling.measure(), "load": os.getloadavg()[0]}
        try:
            sample |= await act(engine, self.plan)
        except Exception as error:
            self.left_out[name] = f"failed: {error}"
            print(f"  {name} failed and is left out: {error}", flush=True)
        finally:
            await engine.stop()
        self.versions[name] = engine.version
        print(f"  {name}: {time.monotonic() - began:.0f} s", flush=True)
        return sample


def main() -> int:
    options = arguments()
    began = time.monotonic()
    setup = Setup(prepare(), threads=2, kv_tokens=16384, context=SHAPE.positions, sessions=9, chunk=512)
    with tempfile.TemporaryDirectory(prefix="berth-peers-") as folder:
        comparison = Comparison(QUICK if options.quick else FULL, setup, options.engines, Path(folder))
        results = asyncio.run(comparison.run(options.rounds))
    results |= {"machine": machine.described(), "date": time.strftime("%Y-%m-%d")}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "peers.json").write_text(json.dumps(results, indent=1))
    if engines.BASE in results["left_out"]:
        print(f"nothing to compare with: {engines.BASE} {results['left_out'][engines.BASE]}")
        return 1
    print(report.show(results))
    print(f"\nwrote {options.out / 'peers.json'} ({time.monotonic() - began:.0f} s)")
    report.plot(results, options.out / "peers.svg")
    if options.write_docs:
        report.write_docs(results, ROOT / "docs")
    return 1 if results["left_out"] else 0


if __name__ == "__main__":
    sys.exit(main())
