"""Text to ids beside the engine's thread, not instead of it."""

from __future__ import annotations

import threading

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
