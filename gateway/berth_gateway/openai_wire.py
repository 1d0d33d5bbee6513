"""OpenAI's chat dialect: what we read, what we write, and what one is in the other's words. No I/O.

Clients of that API send more than they mean, so unknown fields are ignored; those that would change the answer and that
we do not have (`tools`, `n` above 1, …) are refused by name rather than ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta, Struct, ValidationError, convert

from berth_api.errors import InvalidRequest
from berth_api.public import Message, TurnCreate, Usage
from berth_api.wire import FinishReason, Sampling, TokenLogprob
from berth_gateway.bodies import explain

_SAMPLING = (
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "temperature",
    "min_new_tokens",
    "seed",
)


class ChatMessage(Struct, frozen=True):
    """As `Message`, but lenient: clients send back what they were given, `refusal` and all."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None


class StreamOptions(Struct, frozen=True):
    include_usage: bool = False


class ChatRequest(Struct, frozen=True):
    """POST /v1/chat/completions, SGLang's extra sampling fields included."""

    model: str
    messages: list[ChatMessage]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    min_new_tokens: int | None = None
    ignore_eos: bool | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    logit_bias: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None


class Chunk(Struct, frozen=True, omit_defaults=True, tag="chat.completion.chunk", tag_field="object"):
    """One `data:` of a stream. `object` is a tag because a default would be left out, and clients tell by it."""

    id: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None


def as_turn(request: ChatRequest, most: int) -> TurnCreate:
    """Return the turn a request asks for; `most` tokens where it names no limit. Raises `InvalidRequest`."""
    _refuse_what_we_lack(request)
    values: dict[str, Any] = {name: value for name in _SAMPLING if (value := getattr(request, name)) is not None}
    limit = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    values["max_new_tokens"] = most if limit is None else limit
    if values.get("stop") == []:
        del values["stop"]
    try:
        sampling = convert(values, Sampling)
    except ValidationError as error:
        _, where = explain(str(error))
        name = where.get("field", "sampling").partition("[")[0]
        raise InvalidRequest(str(error), field="max_tokens" if name == "max_new_tokens" else name) from None
    messages = [_message(one, f"messages[{n}]") for n, one in enumerate(request.messages)]
    if not messages:
        raise InvalidRequest("messages is empty", field="messages")
    return TurnCreate(
        messages=messages,
        sampling=sampling,
        stream=request.stream,
        logprobs=bool(request.logprobs),
        top_logprobs=request.top_logprobs or 0,
    )


def _message(one: ChatMessage, where: str) -> Message:
    try:
        return convert({"role": one.role, "content": one.content, "name": one.name}, Message)
    except ValidationError as error:
        message, at = explain(str(error))
        raise InvalidRequest(message, field=f"{where}.{at.get('field', 'role')}") from None


def _refuse_what_we_lack(request: ChatRequest) -> None:
    lacks = {
        "n": request.n not in (None, 1),
        "tools": bool(request.tools),
        "functions": bool(request.functions),
        "logit_bias": bool(request.logit_bias),
        "response_format": (request.response_format or {}).get("type", "text") != "text",
        "modalities": request.modalities not in (None, ["text"]),
        "top_logprobs": bool(request.top_logprobs) and not request.logprobs,
    }
    for name, lacking in lacks.items():
        if lacking:
            raise InvalidRequest(f"{name} is not supported with this value", field=name)
    if any(message.tool_calls for message in request.messages):
        raise InvalidRequest("tool_calls are not supported", field="messages")


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def choice(
    kind: str, content: dict[str, Any], finish: FinishReason | None, logprobs: dict[str, Any] | None
) -> dict[str, Any]:
    """One choice: `kind` is `delta` or `message`."""
    reason = finish.type if finish is not None else None
    return {"index": 0, kind: content, "logprobs": logprobs, "finish_reason": reason}


def logprobs_of(found: list[TokenLogprob] | None, text_of: Callable[[int], str]) -> dict[str, Any] | None:
    """Return OpenAI's logprobs object; `text_of` shows one token."""
    if not found:
        return None
    content = [
        {
            **_one(one.id, one.logprob, text_of),
            "top_logprobs": [_one(token, value, text_of) for value, token in one.top],
        }
        for one in found
    ]
    return {"content": content, "refusal": None}


def _one(token: int, logprob: float, text_of: Callable[[int], str]) -> dict[str, Any]:
    text = text_of(token)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
