"""The bodies of SGLang's native API: what its clients send, and what they expect back."""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from berth_api.errors import InvalidRequest
from berth_api.wire import MAX_NEW_TOKENS_LIMIT, Aborted, Finished, Sampling, Started, Tokens
from berth_worker.engine.requests import Generate, PromptLogprobs
from berth_worker.sessions.branches import PLAIN, Branch

if TYPE_CHECKING:
    from collections.abc import Callable

    from berth_worker.engine.core import Core
    from berth_worker.engine.requests import Event

TokenId = Annotated[int, Meta(ge=0, lt=1 << 31)]
Position = Annotated[int, Meta(ge=-1, le=MAX_NEW_TOKENS_LIMIT)]
Top = Annotated[int, Meta(ge=0, le=20)]
Rid = Annotated[str, Meta(min_length=1, max_length=256)]

UNSUPPORTED_SAMPLING = frozenset(
    {"json_schema", "regex", "ebnf", "structural_tag", "stop_regex", "logit_bias", "custom_params", "n"}
)
"""SGLang's sampling fields that change the output in ways the engine does not know: only their neutral value passes."""


class SessionParams(Struct, frozen=True):
    """Which session a request belongs to; where in it, if it is not a streaming one."""

    id: Annotated[str, Meta(min_length=1, max_length=256)]
    rid: str | None = None
    offset: int | None = None
    replace: bool | None = None
    drop_previous_output: bool | None = None


class GenerateBody(Struct, frozen=True):
    """POST /generate. Unknown members are ignored: SGLang's clients send many."""

    text: str | list[str] | None = None
    input_ids: list[TokenId | list[TokenId]] | None = None
    sampling_params: dict[str, Any] | list[dict[str, Any]] | None = None
    stream: bool = False
    rid: Rid | list[Rid] | None = None
    return_logprob: bool | None = None
    logprob_start_len: Position | None = None
    top_logprobs_num: Top | None = None
    return_text_in_logprobs: bool = False
    session_params: SessionParams | None = None


class OpenBody(Struct, frozen=True):
    """POST /open_session."""

    capacity_of_str_len: Annotated[int, Meta(ge=1, le=1 << 53)]
    session_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    streaming: bool | None = None
    timeout: Annotated[float, Meta(gt=0)] | None = None


class CloseBody(Struct, frozen=True):
    """POST /close_session."""

    session_id: str


class AbortBody(Struct, frozen=True):
    """POST /abort_request."""

    rid: str | None = None
    abort_all: bool = False

    def __post_init__(self) -> None:
        if self.rid is None and not self.abort_all:
            raise ValueError("rid or abort_all is needed")

    def carry_out(self, core: Core) -> None:
        """Abort what is meant (engine thread)."""
        if self.rid is not None and not self.abort_all:
            core.abort(self.rid)
        else:
            core.abort_all("abort", "aborted by request")


class Prompt(Struct, frozen=True):
    """One prompt of a request: text, to be turned into ids, or the ids."""

    text: str | None
    ids: list[int]


def prompts(body: GenerateBody) -> tuple[list[Prompt], bool]:
    """Return the prompts of a request, and whether it is a batch (answered by a list)."""
    if (body.text is None) == (body.input_ids is None):
        raise InvalidRequest("exactly one of text and input_ids is needed", field="text")
    if body.text is not None:
        many = isinstance(body.text, list)
        found = [Prompt(text, []) for text in (body.text if isinstance(body.text, list) else [body.text])]
    else:
        given = body.input_ids or []
        lists = [ids for ids in given if isinstance(ids, list)]
        many = bool(lists)
        if many and len(lists) != len(given):
            raise InvalidRequest("input_ids mixes ids and lists of ids", field="input_ids")
        found = [Prompt(None, ids) for ids in (lists or [[token for token in given if isinstance(token, int)]])]
    if not found:
        raise InvalidRequest("the batch is empty", field="text")
    if many and body.session_params is not None:
        raise InvalidRequest("a batch cannot be a turn of a session", field="session_params")
    return found, many


def branch(params: SessionParams) -> Branch:
    """Return where in its session a request goes; whether it can go there, only the session knows."""
    return Branch(
        rid=params.rid,
        offset=params.offset or 0,
        replace=bool(params.replace),
        drop_previous_output=bool(params.drop_previous_output),
    )


def requests(body: GenerateBody, ids: list[list[int]]) -> list[Generate]:
    """Return one engine request for each prompt's `ids`."""
    count = len(ids)
    samplings = _each("sampling_params", body.sampling_params, count)
    rids = _each("rid", body.rid, count)
    if count > 1 and isinstance(body.rid, str):
        rids = [f"{body.rid}_{index}" for index in range(count)]
    start = body.logprob_start_len
    session = body.session_params
    built = []
    for prompt, raw, rid in zip(ids, samplings, rids, strict=True):
        sampling = sampling_of(raw or {})
        built.append(
            Generate(
                rid=rid or uuid.uuid4().hex,
                input_ids=np.array(prompt, np.int32),
                sampling=sampling,
                seed=sampling.seed if sampling.seed is not None else secrets.randbits(63),
                session_id=session.id if session is not None else None,
                return_logprob=bool(body.return_logprob),
                logprob_start=start if body.return_logprob and start is not None and start >= 0 else None,
                top_logprobs=body.top_logprobs_num or 0,
                branch=branch(session) if session is not None else PLAIN,
            )
        )
    return built


def _each(name: str, value: Any, count: int) -> list[Any]:
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise InvalidRequest(f"{name} has {len(value)} entries for {count} prompts", field=name)
    return value


def sampling_of(raw: dict[str, Any]) -> Sampling:
    """Return SGLang's sampling_params as ours. Raises `InvalidRequest` naming the parameter."""
    known = {name: value for name, value in raw.items() if value is not None and name not in UNSUPPORTED_SAMPLING}
    for name in UNSUPPORTED_SAMPLING & raw.keys():
        if raw[name] not in (None, {}) and (name, raw[name]) != ("n", 1):
            raise InvalidRequest(f"{name} is not supported", field=f"sampling_params.{name}")
    if known.pop("spaces_between_special_tokens", True) is not True:
        raise InvalidRequest("only true is supported", field="sampling_params.spaces_between_special_tokens")
    if "sampling_seed" in known:
        known["seed"] = known.pop("sampling_seed")
    if raw.get("max_new_tokens", 0) is None:
        known["max_new_tokens"] = MAX_NEW_TOKENS_LIMIT
    try:
        return msgspec.convert(known, Sampling)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"sampling_params: {error}", field="sampling_params") from error


class Reply:
    """The cumulative answer to one request, as SGLang builds it."""

    def __init__(self, request: Generate, decode: Callable[[int], str] | None, elapsed: Callable[[], float]) -> None:
        """`decode` turns an id into text for the logprob lists; None leaves it out."""
        self._request, self._decode, self._elapsed = request, decode, elapsed
        self._text: list[str] = []
        self._ids: list[int] = []
        self._meta: dict[str, Any] = {"id": request.rid, "finish_reason": None, "prompt_tokens": 0}
        self._meta |= {"completion_tokens": 0, "cached_tokens": 0}
        self.failed: Aborted | None = None
        """The request broke on a fault of the worker's."""
        if request.return_logprob:
            self._meta |= {"input_token_logprobs": [], "output_token_logprobs": []}
            if request.top_logprobs:
                self._meta |= {"input_top_logprobs": [], "output_top_logprobs": []}

    def add(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Started(prompt_tokens=prompt, cached_tokens=cached):
                self._meta |= {"prompt_tokens": prompt, "cached_tokens": cached}
            case Tokens():
                self._add_tokens(event)
            case PromptLogprobs(ids=ids, logprobs=logprobs, top=top):
                self._meta["input_token_logprobs"] = [self._entry(*pair) for pair in zip(logprobs, ids, strict=True)]
                if self._request.top_logprobs:
                    self._meta["input_top_logprobs"] = [self._entries(entry) for entry in top]
            case Finished(finish_reason=reason, text=text):
                self._text.append(text)
                done: dict[str, Any] = {"type": reason.type}
                done |= {"matched": reason.matched} if reason.type == "stop" else {"length": len(self._ids)}
                self._meta["finish_reason"] = done
            case Aborted(reason=reason, message=message):
                self.failed = event if reason == "internal_error" else None
                self._meta["finish_reason"] = {"type": "abort", "message": message}

    def body(self) -> dict[str, Any]:
        """Return the answer so far."""
        meta = self._meta | {"e2e_latency": self._elapsed()}
        return {"text": "".join(self._text), "output_ids": list(self._ids), "meta_info": meta}

    def _add_tokens(self, event: Tokens) -> None:
        self._text.append(event.text)
        self._ids += event.ids
        self._meta["completion_tokens"] = len(self._ids)
        for entry in event.logprobs or ():
            self._meta["output_token_logprobs"].append(self._entry(entry.logprob, entry.id))
            if self._request.top_logprobs:
                self._meta["output_top_logprobs"].append(self._entries(entry.top))

    def _entries(self, top: list[tuple[float, int]]) -> list[list[Any]] | None:
        return [self._entry(logprob, token) for logprob, token in top] or None

    def _entry(self, logprob: float | None, token: int) -> list[Any]:
        return [logprob, token, self._decode(token) if self._decode is not None else None]
