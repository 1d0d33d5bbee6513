"""Does berth-tiny remember what it was told, through the gateway, and across its worker's death?

    python tests/bench/recall.py --items 200

Half of the conversations lose their worker: to SIGKILL between the fact and the question, or in mid-answer.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).resolve().parent
FLEET_KIT = str(HERE.parent / "fleet")
if FLEET_KIT not in sys.path:
    sys.path.insert(0, FLEET_KIT)

from berth_worker.builtin.recall import RecallItem, is_recalled, recall_items  # noqa: E402 - after the path
from fleetkit.client import Client, Streamed  # noqa: E402
from fleetkit.procs import kill  # noqa: E402
from fleetkit.story import Body, Hook, at_token, turn  # noqa: E402
from fleetkit.table import table  # noqa: E402
from fleetkit.up import LocalFleet  # noqa: E402

WANTED = 0.9
SAMPLING = {"max_new_tokens": 96, "temperature": 0}
PROGRESS_EVERY = 20
AT_ONCE = 8


@dataclass(frozen=True)
class Answer:
    """What came of one item. `died`: its worker was killed on the way; `moved`: in the middle of an answer."""

    item: RecallItem
    text: str
    died: bool
    moved: bool

    @property
    def right(self) -> bool:
        return is_recalled(self.text, self.item.expect)


async def ask(fleet: LocalFleet, client: Client, item: RecallItem, dice: random.Random, *, deadly: bool) -> Answer:
    """Tell the item's turns on a new session; `deadly` kills its worker once after the fact was told."""
    name = (await client.open())["name"]
    # The fact is told in the first or second turn, the question is the last: any turn between may lose its worker.
    fatal = dice.randrange(2, len(item.turns)) if deadly else None
    in_the_middle = dice.random() < 0.5
    seen, moved = Streamed(), False
    for number, message in enumerate(item.turns):
        body: Body = {"messages": [{"role": "user", "content": message}], "sampling": SAMPLING}
        hook: Hook | None = None
        if number == fatal:
            pid = await _worker_pid(fleet, client, name)
            if in_the_middle:
                hook = at_token(3, lambda pid=pid: kill(pid))  # type: ignore[misc]
            else:
                kill(pid)
        seen = await turn(client, name, body, hook)
        if seen.outcome != "committed":
            raise RuntimeError(f"turn {number} of {item}: {seen.outcome} {seen.reply or seen.end}")
        moved = moved or bool(seen.named("turn.moved"))
    return Answer(item, seen.text, deadly, moved)


async def _worker_pid(fleet: LocalFleet, client: Client, name: str) -> int:
    view = await client.session(name)
    worker = view["worker"] or next(iter(fleet.living))
    return fleet.worker_pid(worker)


async def run(fleet: LocalFleet, client: Client, count: int, *, aloud: bool = True) -> list[Answer]:
    """Ask them all: those that live several at a time, then the others, each on a fleet that is whole again."""
    dice, items, answers = random.Random("deaths"), recall_items(count), list[Answer]()

    def add(answer: Answer) -> None:
        answers.append(answer)
        if aloud and len(answers) % PROGRESS_EVERY == 0:
            print(f"{len(answers):4} of {count}: {sum(answer.right for answer in answers)} right", flush=True)

    turnstile = asyncio.Semaphore(AT_ONCE)

    async def peacefully(item: RecallItem) -> None:
        async with turnstile:
            add(await ask(fleet, client, item, dice, deadly=False))

    await asyncio.gather(*(peacefully(item) for item in items[0::2]))
    for item in items[1::2]:
        await fleet.whole(2)
        add(await ask(fleet, client, item, dice, deadly=True))
    return answers


def summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Right answers, apart for the conversations that lost their worker."""
    groups = {
        "worker lived": [answer for answer in answers if not answer.died],
        "worker died": [answer for answer in answers if answer.died],
        "of them in mid-answer": [answer for answer in answers if answer.moved],
        "all": list(answers),
    }
    return {
        name: {"asked": len(group), "right": sum(a.right for a in group)} for name, group in groups.items() if group
    }


def show(found: dict[str, Any]) -> str:
    rows = [
        (name, part["asked"], part["right"], f"{part['right'] / part['asked']:.1%}") for name, part in found.items()
    ]
    return table("Recall of berth-tiny, two turns or more after the fact", ("", "asked", "right", "share"), rows)


async def measure(count: int) -> tuple[list[Answer], dict[str, Any]]:
    """Start a fleet of the built-in model and ask."""
    with tempfile.TemporaryDirectory(prefix="berth-recall-") as folder:
        fleet = await LocalFleet.start(Path(folder), workers=3, args=["--threads", "1"])
        try:
            async with aiohttp.ClientSession() as http:
                answers = await run(fleet, Client(http, fleet.gateway), count)
        finally:
            await fleet.close()
    return answers, summary(answers)


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--items", type=int, default=200)
    options = flags.parse_args()
    began = time.monotonic()
    answers, found = asyncio.run(measure(options.items))
    print(show(found))
    for answer in answers:
        if not answer.right:
            print(f"  wanted {answer.item.expect!r}, got {answer.text!r} for {answer.item.turns[-1]!r}")
    print(f"{time.monotonic() - began:.0f} s")
    return 0 if found["all"]["right"] >= WANTED * found["all"]["asked"] else 1


if __name__ == "__main__":
    sys.exit(main())
