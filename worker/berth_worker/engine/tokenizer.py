"""A checkpoint's tokenizer.json: text to ids and back, by the `tokenizers` library alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import tokenizers

from berth_worker.engine.detokenizer import Detokenizer
from berth_worker.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORDS_KEPT: Final = 1000
"""Words that the library keeps with their ids. Left alone it keeps 10,000: tens of MB where a word is a whole text."""


class Tokenizer:
    """Thread-safe: nothing changes after the start."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        resize = getattr(backend.model, "_resize_cache", None)
        if resize is not None:
            resize(WORDS_KEPT)
        added = backend.get_added_tokens_decoder()
        self._special = frozenset(token for token, what in added.items() if what.special)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of `text`, with BOS and the like only if asked for."""
        # A batch of one: plain `encode` holds the interpreter's lock, and the engine's thread, for as long as it takes.
        [encoding] = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of `ids`; an id outside the vocabulary has none."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def stream(self, *, skip_special_tokens: bool) -> Detokenizer:
        """Return a detokenizer for one turn."""
        skipped = self._special if skip_special_tokens else frozenset[int]()
        return Detokenizer(lambda ids: self.decode(ids, skip_special_tokens=False), skipped)

    def token_id(self, text: str) -> int | None:
        """Return the id of the token spelt `text`."""
        found: int | None = self._backend.token_to_id(text)
        return found


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read `folder`/tokenizer.json. Raises ModelError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no tokenizer.json")
    try:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises Exception itself
        raise ModelError(f"cannot read {path}: {error}") from error
