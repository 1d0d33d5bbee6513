"""Chat templates, rendered by the rules Hugging Face templates are written for, and cut down to what a session needs.

A session keeps ids, not messages, so a turn sends only what the template adds for its new messages. That is sound only
where a template appends: a longer conversation must start with what the shorter one rendered to. A probe tells.

The assistant's end mark belongs to the turn before; where that turn ended without it (by length or a stop string), the
delta closes the message first.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from berth_api.errors import InvalidRequest

Messages = list[dict[str, Any]]

_ANSWER = "berth-probe-answer"
_PROBE: Messages = [{"role": "user", "content": "berth-probe-question"}, {"role": "assistant", "content": _ANSWER}]
_NEXT: Messages = [{"role": "user", "content": "berth-probe-next"}]


class ChatTemplate:
    """One model's template. `specials` are its named special tokens (`bos_token`, `eos_token`, …)."""

    def __init__(self, source: str, specials: dict[str, str]) -> None:
        """Raises `InvalidRequest` for a template that does not compile."""
        self._specials = specials
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise InvalidRequest(f"the model's chat template is broken: {error}", field="messages") from None
        self._probed: tuple[str, str] | None = None

    def first(self, messages: Messages) -> str:
        """Render a whole conversation up to where the assistant's answer begins."""
        return self._render(messages, generate=True)

    def next(self, messages: Messages) -> tuple[str, str]:
        """Return (what closes the assistant's message, what the template adds for `messages`)."""
        base, closing = self._probe()
        text = self._render(_PROBE + messages, generate=True)
        if not text.startswith(base):
            raise _rewrites()
        return closing, text[len(base) :]

    def _probe(self) -> tuple[str, str]:
        """Return (the probe rendered, what follows the answer in it), having shown that the template only appends."""
        if self._probed is None:
            asked = self._render(_PROBE[:1], generate=True)
            answered = self._render(_PROBE, generate=False)
            longer = self._render(_PROBE + _NEXT, generate=True)
            if not answered.startswith(asked + _ANSWER) or not longer.startswith(answered):
                raise _rewrites()
            self._probed = answered, answered[len(asked) + len(_ANSWER) :]
        return self._probed

    def _render(self, messages: Messages, *, generate: bool) -> str:
        try:
            return self._template.render(messages=messages, add_generation_prompt=generate, **self._specials)
        except jinja2.TemplateError as error:
            raise InvalidRequest(f"the chat template refuses these messages: {error}", field="messages") from None
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise InvalidRequest(f"the chat template failed on these messages: {error}", field="messages") from None


def _rewrites() -> InvalidRequest:
    return InvalidRequest(
        "this model's chat template rewrites history: unsupported in sessions; send `input` or `input_ids` instead",
        field="messages",
    )


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment templates on the Hub expect: block trimming, loop controls, and a few helpers."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _GenerationTag]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    return environment


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks training targets; here its body is just its body."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
