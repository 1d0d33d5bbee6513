"""Text to ids and back, with the model's own tokenizer, once a turn and at the edge only.

`tokenizers` and Jinja directly, not `transformers`: importing that takes seconds and pulls torch in wherever torch is
installed, for two files that it would read in the same way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from berth_api.errors import InvalidRequest
from berth_api.public import Message, TurnCreate
from berth_api.wire import FinishReason, ModelInfo, Sampling
from berth_gateway.events import pack, unpack
from berth_gateway.template import ChatTemplate, Messages

_SPECIALS = ("bos_token", "eos_token", "pad_token", "unk_token")
_CONTEXT = 6
"""Ids before an output that are decoded with it, so that its first word gets the space it was generated with."""

_WORDS_KEPT = 1000
"""Words that the library keeps with their ids. Left alone it keeps 10,000: tens of MB where a word is a whole text."""


class ModelText:
    """One model's words. Pure: loaded once, then safe for any thread."""

    def __init__(self, info: ModelInfo, folder: Path | None) -> None:
        """Read the tokenizer from `folder`; None: the model has none, and takes ids only. Blocks for file I/O."""
        self.info = info
        self._tokenizer: Tokenizer | None = None
        self._template: ChatTemplate | None = None
        self._eos = frozenset(info.eos_token_ids)
        if folder is not None and (folder / "tokenizer.json").is_file():
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            resize = getattr(self._tokenizer.model, "_resize_cache", None)
            if resize is not None:
                resize(_WORDS_KEPT)
            config = _read_json(folder / "tokenizer_config.json")
            source = _template_source(folder, config)
            if source is not None:
                self._template = ChatTemplate(source, _special_tokens(config))

    # To ids ---------------------------------------------------------------------------------------------------------

    def encode(self, body: TurnCreate, *, parent: str, tail: int | None) -> bytes:
        """Return a turn's packed ids. `tail` is the history's last id, needed for `messages` after the first turn.

        Raises `InvalidRequest` naming the field.
        """
        first = not parent
        if body.input_ids is not None:
            ids, field = self._checked(body.input_ids), "input_ids"
        elif body.messages is not None:
            ids, field = self._encode_messages(body.messages, first=first, tail=tail), "messages"
        else:
            ids, field = self._encode(body.input or "", special=first, field="input"), "input"
        if not first and ids and ids[0] == self.info.bos_token_id:
            ids = ids[1:]
        if not ids:
            raise InvalidRequest(f"{field} holds no token", field=field)
        return pack(ids)

    def _encode_messages(self, messages: list[Message], *, first: bool, tail: int | None) -> list[int]:
        if self._template is None:
            raise InvalidRequest("this model has no chat template: send `input` or `input_ids`", field="messages")
        plain = _plain(messages)
        if first:
            return self._encode(self._template.first(plain), special=False, field="messages")
        closing, text = self._template.next(plain)
        return self._encode(self._close(closing, tail) + text, special=False, field="messages")

    def _close(self, closing: str, tail: int | None) -> str:
        """Return what is missing of the assistant's end mark: its end-of-turn token may be in the history already."""
        if tail in self._eos and self._tokenizer is not None:
            mark = self._tokenizer.id_to_token(tail) or ""
            if mark and closing.startswith(mark):
                return closing[len(mark) :]
        return closing

    def _encode(self, text: str, *, special: bool, field: str) -> list[int]:
        if self._tokenizer is None:
            raise InvalidRequest("this model has no tokenizer: send `input_ids`", field=field)
        # A batch of one: plain `encode` holds the interpreter's lock, and every stream, for as long as it takes.
        return list(self._tokenizer.encode_batch_fast([text], add_special_tokens=special)[0].ids)

    def _checked(self, ids: list[int]) -> list[int]:
        vocabulary = self.info.vocab_size
        for position, value in enumerate(ids):
            if not 0 <= value < vocabulary:
                field = f"input_ids[{position}]"
                raise InvalidRequest(f"{field} is outside the vocabulary of {vocabulary}", field=field)
        return ids

    # To text --------------------------------------------------------------------------------------------------------

    def decode(self, packed: bytes, *, skip_special: bool = True) -> str:
        """Return the text of packed ids; empty where the model has no tokenizer."""
        if self._tokenizer is None:
            return ""
        return str(self._tokenizer.decode(unpack(packed), skip_special_tokens=skip_special))

    def token(self, token: int) -> str:
        """Return one token as text."""
        return self.decode(token.to_bytes(4, "little"), skip_special=False)

    def output_text(self, before: bytes, output: bytes, finish: FinishReason | None, sampling: Sampling) -> str:
        """Return an output's text as its stream had it: trimmed by what ended it, unless asked not to."""
        if self._tokenizer is None:
            return ""
        ids, matched = unpack(output), finish.matched if finish else None
        if isinstance(matched, int) and not sampling.no_stop_trim and ids and ids[-1] == matched:
            ids = ids[:-1]
        context = unpack(before[-4 * _CONTEXT :])
        skip = sampling.skip_special_tokens
        lead = self._tokenizer.decode(context, skip_special_tokens=skip)
        text = self._tokenizer.decode(context + ids, skip_special_tokens=skip)
        text = text[len(lead) :] if text.startswith(lead) else self._tokenizer.decode(ids, skip_special_tokens=skip)
        if isinstance(matched, str) and not sampling.no_stop_trim:
            text = text[: text.rfind(matched)] if matched in text else text
        return str(text)


def _plain(messages: list[Message]) -> Messages:
    """Return messages as templates take them. Raises `InvalidRequest` for parts that are no text."""
    if not messages:
        raise InvalidRequest("messages is empty", field="messages")
    plain: Messages = []
    for n, message in enumerate(messages):
        one: dict[str, Any] = {"role": message.role, "content": _content(message, n)}
        if message.name is not None:
            one["name"] = message.name
        plain.append(one)
    return plain


def _content(message: Message, n: int) -> str:
    content = message.content
    if content is None:
        raise InvalidRequest(f"messages[{n}].content is missing", field=f"messages[{n}].content")
    if isinstance(content, str):
        return content
    texts = []
    for k, part in enumerate(content):
        where = f"messages[{n}].content[{k}]"
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise InvalidRequest(f"{where} is no text part: this model takes text only", field=where)
        texts.append(part["text"])
    return "".join(texts)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _template_source(folder: Path, config: dict[str, Any]) -> str | None:
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # several by name: the one for chat is `default`
        found = next((one.get("template") for one in found if one.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name in _SPECIALS:
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[name] = token
    return found
