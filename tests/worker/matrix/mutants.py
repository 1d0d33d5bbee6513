"""The known faults of streaming sessions, each put back once: a test must notice.

    python tests/worker/matrix/mutants.py                all of them (minutes)
    python tests/worker/matrix/mutants.py zombie close   those with one of these words in their names

A mutant is applied to a copy of the tree; this one is only read. Exit 0: all were killed. `origin` says where a fault
was first met: pull requests and issues of SGLang, whose sessions these are.

Last result: 30 of 30 killed. What gave them away:

    the books, at the next step     a slot counted twice, a remembered flag, pages leaked or freed twice,
                                    a slot evicted or closed under its turn, a second turn in flight, a rollback too far
    KV held after an abort          a slot of the first turn, a half-grown slot, a lock or a page not given back
    prompt_tokens of the next turn  commits of aborted turns and of zombies
    cached_tokens of the next turn  a second -1, a truncated slot, logprobs that shrink the match key
    a refusal that does not end     a queued turn that stays in flight
    no answer                       pinned KV
    lengths, retracts and the idle  over-allocation, retraction that frees nothing, clocks: by a core and a registry
    clock, with a clock that is     driven by hand
    told the time
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("api", "gateway", "worker", "kernels", "operator")
LIMIT_S = 120
"""A mutant may hang its test; the test's own requests give up after a minute."""

ERROR = re.compile(r"E +(\S.*)|[ |]+(\w*Error: .*)")
"""An error as pytest tells of it: one of its own lines, or one of a group's."""

CACHE, ENGINE = "worker/berth_worker/cache", "worker/berth_worker/engine"
SESSIONS, SERVER = "worker/berth_worker/sessions", "worker/berth_worker/server"
MATRIX = "tests/worker/matrix"


class Edit(NamedTuple):
    """`source` occurs exactly once in `file`."""

    file: str
    source: str
    replacement: str

    def apply(self, text: str) -> str:
        """Return `text` with the edit made. Raises ValueError unless there is one place for it."""
        if text.count(self.source) != 1:
            raise ValueError(f"{self.file} has {text.count(self.source)} times: {self.source}")
        return text.replace(self.source, self.replacement)


@dataclass(frozen=True)
class Mutant:
    """A fault, the edits that bring it about and the test that must fail then."""

    name: str
    origin: str
    edits: tuple[Edit, ...]
    test: str

    def apply(self, root: Path) -> None:
        """Make the edits in the tree at `root`."""
        for edit in self.edits:
            path = root / edit.file
            path.write_text(edit.apply(path.read_text()))


RELEASE_ON_ABORT = """\
        if not self.slots.release(live.sequence.session, "aborted") and live.sequence.holding is not None:
            self.cache.release(live.sequence.holding)
"""
SAVE_ON_ABORT = """\
        session, holding = live.sequence.session, live.sequence.holding
        if {condition} and session is not None and holding is not None:
            self.slots.save(session, holding, live.sequence.length)
        elif not self.slots.release(session, "aborted") and holding is not None:
            self.cache.release(holding)
"""
END_ON_ABORT = """\
        if live.native is not None:
            self.native.end(live.native, None, self._clock())
"""
INTAKE = "        live = self._intake.generate(request, start, self._arrivals, sink)\n"
RESTORE = "        self._cache.trim(slot.holding, min(reuse, slot.holding.committed))\n"
RESTORE_ON_ADMISSION = "self._slots.restore(sequence.session, min(sequence.reuse, sequence.length - 1))"
IDLE = "if id(slot.holding) not in lent_ids]"

MUTANTS = (
    Mutant(
        "an abort of the first turn leaves a slot",
        "#22790",
        (Edit(f"{ENGINE}/core.py", RELEASE_ON_ABORT, SAVE_ON_ABORT.format(condition="not live.sequence.history")),),
        f"{MATRIX}/test_aborts.py::test_an_abort_wipes_kv_and_keeps_tokens[base-25-0]",
    ),
    Mutant(
        "an abort of a later turn keeps the half-grown slot",
        "#22790",
        (Edit(f"{ENGINE}/core.py", RELEASE_ON_ABORT, SAVE_ON_ABORT.format(condition="live.sequence.history")),),
        f"{MATRIX}/test_aborts.py::test_an_abort_wipes_kv_and_keeps_tokens[base-25-3]",
    ),
    Mutant(
        "an abort of the first turn leaks its KV",
        "#22790",
        (
            Edit(
                f"{ENGINE}/core.py", RELEASE_ON_ABORT, '        self.slots.release(live.sequence.session, "aborted")\n'
            ),
        ),
        f"{MATRIX}/test_aborts.py::test_an_abort_wipes_kv_and_keeps_tokens[base-25-0]",
    ),
    Mutant(
        "an abort commits what was said",
        "#22790",
        (
            Edit(
                f"{ENGINE}/core.py", END_ON_ABORT, END_ON_ABORT.replace("None, self", "live.sequence.ids.copy(), self")
            ),
        ),
        f"{MATRIX}/test_aborts.py::test_an_abort_wipes_kv_and_keeps_tokens[base-25-3]",
    ),
    Mutant(
        "a refused turn clears the mark of the turn in flight",
        "#22790, #36503",
        (
            Edit(
                f"{SESSIONS}/native.py",
                "        if session.in_flight:\n            raise",
                "        if session.in_flight:\n            session.in_flight = False\n            raise",
            ),
        ),
        f"{MATRIX}/test_aborts.py::test_a_refused_turn_changes_nothing[base-2]",
    ),
    Mutant(
        "a turn that waits is not yet in flight",
        "#22790",
        (Edit(f"{ENGINE}/core.py", "            self.native.begin(start)\n", "            pass\n"),),
        f"{MATRIX}/test_aborts.py::test_an_abort_of_a_queued_turn_ends_it[base-0]",
    ),
    Mutant(
        "an over-long turn truncates the session's KV",
        "#22273, #22790",
        (
            Edit(
                f"{ENGINE}/core.py",
                INTAKE,
                f"        try:\n    {INTAKE}        except TooLong:\n"
                '            self.slots.restore(("native", request.session_id or ""), 1)\n            raise\n',
            ),
            Edit(
                f"{ENGINE}/core.py",
                "import Conflict, Draining, InvalidRequest",
                "import Conflict, Draining, InvalidRequest, TooLong",
            ),
        ),
        f"{MATRIX}/test_aborts.py::test_over_long_turns_leak_nothing_and_cost_the_session_nothing[short-context]",
    ),
    Mutant(
        "a refused turn renews the idle clock",
        "#39035",
        (
            Edit(
                f"{ENGINE}/core.py",
                INTAKE,
                "        if start is not None:\n            start.session.idle_since = self._clock()\n" + INTAKE,
            ),
        ),
        "tests/worker/sessions/test_native_turns.py::test_a_refused_turn_does_not_renew_the_idle_clock",
    ),
    Mutant(
        "a release frees pages that the tree owns",
        "#22790",
        (
            Edit(
                f"{CACHE}/kv.py",
                "self.pool.give(self.pages(holding)[self.pool.pages_for(holding.shared) :])",
                "self.pool.give(self.pages(holding))",
            ),
        ),
        f"{MATRIX}/test_aborts.py::test_an_abort_wipes_kv_and_keeps_tokens[base-25-3]",
    ),
    Mutant(
        "a release forgets the tree's lock",
        "#22790",
        (
            Edit(
                f"{CACHE}/kv.py",
                "        if holding.node is not None:\n            self.tree.unlock(holding.node)\n        self.pool",
                "        self.pool",
            ),
        ),
        f"{MATRIX}/test_aborts.py::test_an_abort_wipes_kv_and_keeps_tokens[base-25-3]",
    ),
    Mutant(
        "a prompt computed twice leaks one of its copies",
        "#21875",
        (Edit(f"{CACHE}/kv.py", "        self.pool.give(mine[had : inserted.known])\n", ""),),
        f"{MATRIX}/test_load.py::test_sessions_and_plain_requests_at_once[base]",
    ),
    Mutant(
        "the tail is not freed on restore",
        "#22862",
        (
            Edit(
                f"{CACHE}/sessions.py",
                RESTORE,
                RESTORE.replace(
                    "self._cache.trim(slot.holding, ", "slot.holding.allocated = slot.holding.committed = "
                ).replace("))\n", ")\n"),
            ),
        ),
        f"{MATRIX}/test_rollback.py::test_the_tail_of_a_turn_that_was_not_committed_is_freed[base]",
    ),
    Mutant(
        "over-allocation stays on restore",
        "#22862",
        (
            Edit(
                f"{CACHE}/sessions.py",
                RESTORE,
                "        if reuse < slot.holding.committed:\n    " + RESTORE,
            ),
        ),
        f"{MATRIX}/test_faults.py::test_over_allocation_is_freed_on_restore",
    ),
    Mutant(
        "over-allocation is kept at finish",
        "#21875, #22897",
        (
            Edit(
                f"{CACHE}/sessions.py",
                "        self._cache.trim(holding, length)\n        self._slots.pop(key, None)\n",
                "        self._slots.pop(key, None)\n",
            ),
        ),
        f"{MATRIX}/test_faults.py::test_over_allocation_is_not_kept_at_finish",
    ),
    Mutant(
        "the partial page is freed with the tail",
        "#22862",
        (
            Edit(
                f"{CACHE}/kv.py",
                "        keep = self.pool.pages_for(length)\n",
                "        keep = length // self.pool.page_size\n",
            ),
        ),
        f"{MATRIX}/test_inheritance.py::test_a_turn_inherits_all_but_the_token_sampled_last[retract+mixed-within-a-page]",
    ),
    Mutant(
        "a second -1 on the match key",
        "#22862",
        (Edit(f"{CACHE}/sessions.py", RESTORE, RESTORE.replace("committed))", "committed) - 1)")),),
        f"{MATRIX}/test_inheritance.py::test_a_turn_inherits_all_but_the_token_sampled_last[base-within-a-page]",
    ),
    Mutant(
        "a rollback cuts into what the tree owns",
        "#22790",
        (Edit(f"{CACHE}/sessions.py", "if reuse < max(1, slot.holding.shared):", "if reuse < 1:"),),
        f"{MATRIX}/test_rollback.py::test_a_target_below_what_the_tree_owns_begins_anew[base]",
    ),
    Mutant(
        "a lent slot is counted twice",
        "#22213",
        (Edit(f"{CACHE}/integrity.py", IDLE, "]"),),
        f"{MATRIX}/test_inheritance.py::test_a_turn_inherits_all_but_the_token_sampled_last[base-within-a-page]",
    ),
    Mutant(
        "what is lent is remembered by a flag",
        "#22753",
        (
            Edit(f"{CACHE}/integrity.py", IDLE, "if not slot.lent]"),
            Edit(
                f"{CACHE}/sessions.py",
                "    holding: Holding\n    history: History | None = None\n",
                "    holding: Holding\n    history: History | None = None\n    lent: bool = False\n",
            ),
            Edit(
                f"{CACHE}/sessions.py",
                "        return slot.holding\n",
                "        slot.lent = True\n        return slot.holding\n",
            ),
        ),
        f"{MATRIX}/test_load.py::test_a_turn_that_waits_for_room_keeps_what_it_has[base]",
    ),
    Mutant(
        "a queued turn stays in flight when it is aborted",
        "#31765",
        (
            Edit(
                f"{ENGINE}/core.py",
                END_ON_ABORT,
                END_ON_ABORT.replace("not None:", "not None and live.sequence.admitted:"),
            ),
        ),
        f"{MATRIX}/test_aborts.py::test_an_abort_of_a_queued_turn_ends_it[base-2]",
    ),
    Mutant(
        "a queued turn stays in flight when its time is over",
        "#31765",
        (
            Edit(
                f"{ENGINE}/core.py",
                END_ON_ABORT,
                END_ON_ABORT.replace("not None:", 'not None and reason != "queue_timeout":'),
            ),
        ),
        "tests/worker/engine/test_scheduler.py::test_what_has_waited_too_long_is_aborted_and_its_session_takes_turns_again",
    ),
    Mutant(
        "a zombie decodes on when its client is gone, and commits",
        "#36475",
        (
            Edit(
                f"{SERVER}/native.py",
                'served.engine.cancel(call.stream, "disconnected", "the caller went away")',
                "pass",
            ),
        ),
        f"{MATRIX}/test_aborts.py::test_a_client_that_goes_away_takes_its_turn_with_it[base-3-2]",
    ),
    Mutant(
        "a turn that its client left is committed as far as it got",
        "#36475",
        (
            Edit(
                f"{ENGINE}/core.py",
                END_ON_ABORT,
                END_ON_ABORT.replace(
                    "None, self", 'live.sequence.ids.copy() if reason == "disconnected" else None, self'
                ),
            ),
        ),
        f"{MATRIX}/test_aborts.py::test_a_client_that_goes_away_takes_its_turn_with_it[base-3-2]",
    ),
    Mutant(
        "a session is reaped during its turn",
        "#28140",
        (Edit(f"{SESSIONS}/native.py", "is not None and not session.busy and now", "is not None and now"),),
        f"{MATRIX}/test_lifetimes.py::test_a_session_is_not_reaped_during_its_turn[base]",
    ),
    Mutant(
        "the idle clock runs on during a turn",
        "#28140",
        (
            Edit(
                f"{SESSIONS}/native.py",
                "        session.idle_since = now\n        if session.tree",
                "        if session.tree",
            ),
        ),
        "tests/worker/sessions/test_native_registry.py::"
        "test_the_idle_clock_starts_at_a_turns_end_and_stands_still_during_one",
    ),
    Mutant(
        "a close takes the KV of a running turn",
        "#21875",
        (
            Edit(
                f"{ENGINE}/core.py",
                "        if self.native.close(session_id):\n            self.slots",
                "        self.native.close(session_id)\n        if True:\n            self.slots",
            ),
        ),
        f"{MATRIX}/test_lifetimes.py::test_a_close_waits_for_the_running_turn[base]",
    ),
    Mutant(
        "held KV is pinned, and more sessions than fit wait for ever",
        "#27024, #27025, #29099",
        (Edit(f"{CACHE}/sessions.py", "        return idle + late\n", "        return []\n"),),
        f"{MATRIX}/test_load.py::test_more_sessions_than_slots_and_kv_all_finish[base]",
    ),
    Mutant(
        "a slot is evicted under its running turn",
        "#27024",
        (Edit(f"{CACHE}/sessions.py", "if key not in lent and key not in waiting]", "if key not in waiting]"),),
        f"{MATRIX}/test_load.py::test_more_sessions_than_slots_and_kv_all_finish[base]",
    ),
    Mutant(
        "a retracted turn hands its KV to the slot, which frees nothing",
        "#22862",
        (
            Edit(
                f"{ENGINE}/scheduler.py",
                '        if sequence.holding is not None and not self._slots.release(sequence.session, "retracted"):\n',
                "        if sequence.holding is not None and sequence.session is not None:\n"
                "            self._slots.save(sequence.session, sequence.holding, sequence.length)\n"
                "        elif sequence.holding is not None:\n",
            ),
        ),
        f"{MATRIX}/test_faults.py::test_a_retraction_frees_what_others_need",
    ),
    Mutant(
        "to ask for logprobs shrinks the match key",
        "#20955",
        (
            Edit(
                f"{ENGINE}/scheduler.py",
                RESTORE_ON_ADMISSION,
                RESTORE_ON_ADMISSION.replace("- 1)", "- 1, (sequence.prompt_logprobs_from or sequence.length) - 1)"),
            ),
        ),
        f"{MATRIX}/test_logprobs.py::test_asking_shrinks_no_match_and_costs_the_next_turn_nothing[base-0]",
    ),
)


def copy_of_the_tree(folder: Path) -> Path:
    """Return a copy of what the tests run, in `folder`."""
    ignore = shutil.ignore_patterns("__pycache__", ".*", "build")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def failure(root: Path, *tests: str) -> str | None:
    """Run `tests` on the tree at `root`; return why one failed, None if all passed. Raises RuntimeError if none ran."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]
    path = os.pathsep.join(str(root / name) for name in PACKAGES)
    process = subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the worker goes with it
        process.communicate()
        return f"no end within {LIMIT_S} s"
    if process.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(output)
    return None if process.returncode == pytest.ExitCode.OK else reason(output)


def reason(output: str) -> str:
    """Return the first error that pytest tells of; those of the test come before those of its fixtures."""
    _, _, failures = output.partition("= FAILURES =")
    lines = (failures or output).splitlines()
    errors = [found[1] or found[2] for found in map(ERROR.match, lines) if found is not None]
    return errors[0][:120] if errors else lines[-1]


def verdict(mutant: Mutant) -> str | None:
    """Return why the mutant's test fails where the mutant lives; None if it does not."""
    with tempfile.TemporaryDirectory(prefix="berth-mutant-") as folder:
        root = copy_of_the_tree(Path(folder))
        mutant.apply(root)
        return failure(root, mutant.test)


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("words", nargs="*", help="only mutants with one of these in their names")
    words = flags.parse_args().words
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    broken = failure(ROOT, *sorted({mutant.test for mutant in chosen}))
    if broken is not None:
        print(f"the tests fail without any mutant, so nothing can be told: {broken}")
        return 1
    survivors = 0
    for mutant in chosen:
        why = verdict(mutant)
        survivors += why is None
        print(f"{'SURVIVED' if why is None else 'killed'}  {mutant.name} ({mutant.origin}): {why}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return bool(survivors)


if __name__ == "__main__":
    raise SystemExit(main())
