"""Text to ids beside the engine's thread, not instead of it."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from berth_worker.builtin import resolve
from berth_worker.engine.tokenizer import load_tokenizer


def test_a_long_text_leaves_the_interpreter_to_others():
    tokenizer, text = load_tokenizer(resolve("berth-tiny")), "a" * 2_000_000
    encoding = threading.Thread(target=tokenizer.encode, args=(text,), kwargs={"add_special_tokens": False})
    encoding.start()
    turns = 0
    while encoding.is_alive():
        encoding.join(0.001)
        turns += 1
    assert turns > 20


def test_texts_that_never_come_again_are_not_kept():
    """A byte-level tokenizer that splits nowhere takes a whole text for a word: 4 KB each, once it has its ids."""
    tokenizer, dice = load_tokenizer(resolve("berth-tiny")), random.Random(1)

    def encode(count: int) -> int:
        for _ in range(count):
            tokenizer.encode("".join(dice.choices("abcdefgh", k=200)), add_special_tokens=False)
        status = Path("/proc/self/status").read_text().split()
        return int(status[status.index("RssAnon:") + 1])

    full = encode(3000)
    assert encode(6000) - full < 8 * 1024  # KiB; without the bound it is some 40 MiB
