"""Many more programs of the session state machine than a test run has time for.

    python tests/soak/programs.py --examples 10000
    python tests/soak/programs.py --seed 42 --examples 500      one lot again

The programs come in lots, each with a seed of its own, which is printed when a program of the lot fails, with the
shortest program that fails in the same way. Exit 1 then.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any

import structlog
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

WORKER_TESTS = Path(__file__).resolve().parent.parent / "worker"
LOT = 500
PROGRESS_S = 10.0


class Progress:
    """Counts programs as they end."""

    def __init__(self, wanted: int) -> None:
        self._wanted, self._began = wanted, time.monotonic()
        self._told = self._began
        self.programs = 0

    def count(self) -> None:
        self.programs += 1
        if time.monotonic() - self._told >= PROGRESS_S:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        seconds = self._told - self._began
        speed = self.programs / max(seconds, 1e-9)
        print(f"{self.programs} of {self._wanted} programs, {speed:.1f} a second, {seconds:.0f} s", flush=True)


def machine() -> type[RuleBasedStateMachine]:
    """Return the state machine that the tests of the worker's sessions run."""
    sys.path.insert(0, str(WORKER_TESTS))
    path = WORKER_TESTS / "sessions" / "test_session_machine.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    found: type[RuleBasedStateMachine] = module.SessionMachine
    return found


def counted(inner: Any, progress: Progress) -> type[RuleBasedStateMachine]:
    """Return the machine `inner` with its programs counted."""

    class Counted(inner):  # type: ignore[misc]
        def teardown(self) -> None:
            super().teardown()
            progress.count()

    return Counted


def run(examples: int, first_seed: int, steps: int) -> int:
    """Run lots until there were so many examples; return the exit status."""
    progress = Progress(examples)
    seeds = random.Random(first_seed)
    lot_seed = first_seed
    known = counted(machine(), progress)
    for done in range(0, examples, LOT):
        count = min(LOT, examples - done)
        print(f"seed {lot_seed}: {count} programs of up to {steps} steps", flush=True)
        options = settings(
            max_examples=count,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
        )
        try:
            run_state_machine_as_test(seed(lot_seed)(known), settings=options)
        except Exception as error:
            print(f"\n{type(error).__name__}: {error}\n" + "\n".join(getattr(error, "__notes__", [])))
            print(f"again: python tests/soak/programs.py --seed {lot_seed} --examples {count} --steps {steps}")
            return 1
        lot_seed = seeds.randrange(1 << 32)
    progress.tell()
    print("none failed", flush=True)
    return 0


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--examples", type=int, default=10_000)
    flags.add_argument("--steps", type=int, default=50, help="rules a program, at most")
    flags.add_argument("--seed", type=int, help="of the first lot; default: a new one every time")
    options = flags.parse_args()
    # While a failing program is made shorter, each attempt would log the failed step with all its locals.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    first_seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    return run(options.examples, first_seed, options.steps)


if __name__ == "__main__":
    sys.exit(main())
