"""The matrix of streaming sessions at its full size, again and again, with other prompts each time.

    python tests/soak/matrix.py --runs 20
    python tests/soak/matrix.py --runs 5 --seed 100 -k "aborts and base"

Exit 0: no test failed in any run. The output of a run with failures is kept in build/soak.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "soak"
PROGRESS_S = 15.0
OUTCOME = re.compile(r"^(?P<test>\S+::.+?) (?P<outcome>PASSED|FAILED|ERROR)\b")


def arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--runs", type=int, default=20)
    flags.add_argument("--seed", type=int, default=1, help="of the first run; each further run takes the next one")
    flags.add_argument("-k", dest="select", default="", help="pytest's: only tests that match")
    return flags.parse_args()


def lines(seed: int, select: str) -> Iterator[str]:
    """Run the matrix once; yield pytest's output. Raises RuntimeError if it was broken off."""
    command = [sys.executable, "-m", "pytest", "tests/worker/matrix", "-v", "-n", "0", "-p", "no:cacheprovider"]
    command += ["--full", "--matrix-seed", str(seed), "-k", select]
    env = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "1000"}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        yield from run.stdout
    if run.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {run.returncode}")


def run_once(seed: int, select: str) -> Counter[str]:
    """Run the matrix once, telling how it gets on; return how many tests had which outcome."""
    outcomes: Counter[str] = Counter()
    output: list[str] = []
    began = told = time.monotonic()
    for line in lines(seed, select):
        output.append(line)
        found = OUTCOME.match(line)
        if found is None:
            continue
        outcomes[found["outcome"]] += 1
        if found["outcome"] != "PASSED":
            say(seed, f"{found['outcome']} {found['test']}")
        elif time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            say(seed, f"{outcomes.total()} tests after {told - began:.0f} s")
    if outcomes.total() != outcomes["PASSED"]:
        LOGS.mkdir(parents=True, exist_ok=True)
        (LOGS / f"matrix-{seed}.log").write_text("".join(output))
    counts = ", ".join(f"{count} {outcome.lower()}" for outcome, count in sorted(outcomes.items()))
    say(seed, f"{counts} in {time.monotonic() - began:.0f} s")
    return outcomes


def say(seed: int, text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  seed {seed}: {text}", flush=True)


def main() -> int:
    options = arguments()
    total: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.runs):
        total += run_once(seed, options.select)
    failures = total.total() - total["PASSED"]
    print(f"{options.runs} runs, {total.total()} tests, {failures} failures")
    return bool(failures or not total)


if __name__ == "__main__":
    raise SystemExit(main())
