"""Messages between clients and the gateway: bodies of /v1 and the events of a turn's stream."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from berth_api.wire import FinishReason, Sampling, TokenLogprob

NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
"""Names of sessions, fleets and namespaces, as Kubernetes has them (RFC 1123)."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN, max_length=253)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
TokenLimit = Annotated[int, Meta(ge=1, le=1 << 24)]
TurnCount = Annotated[int, Meta(ge=0, le=1 << 31)]
State = Literal["resident", "hibernated", "running", "closing"]
Origin = Literal["cr", "http"]
OnWorkerFailure = Literal["continue", "abort"]


class ForkFrom(Struct, frozen=True, forbid_unknown_fields=True):
    """The session (a name in the same namespace) and how many of its turns to take; None: all."""

    session: Name
    turn: TurnCount | None = None


class SessionCreate(Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """POST /v1/sessions."""

    namespace: Name = "default"
    fleet: Name = "default"
    name: Name | None = None
    idle_timeout_s: Seconds | None = None
    hibernate_after_s: Seconds | None = None
    max_tokens: TokenLimit | None = None
    from_: ForkFrom | None = None


class SessionView(Struct, frozen=True):
    """GET /v1/sessions/{ns}/{name}."""

    namespace: str
    name: str
    uid: str
    origin: Origin
    fleet: str
    state: State
    head: str
    turns: int
    tokens: int
    worker: str | None
    last_active: float
    """Seconds since the epoch."""
    endpoint: str
    """Path of the session under the gateway's base URL."""


class HistoryTurn(Struct, frozen=True):
    """One committed turn as text and ids; `head` is the history's after it."""

    turn_index: int
    head: str
    input_ids: list[int]
    output_ids: list[int]
    input_text: str
    text: str
    turn: str | None = None
    """The turn's id, while its outcome is kept."""


class HistoryView(Struct, frozen=True):
    """GET /v1/sessions/{ns}/{name}/history."""

    head: str
    turns: list[HistoryTurn]


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """One chat message. Content parts other than text are refused by name."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None


class TurnCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/sessions/{ns}/{name}/turns: exactly one of `input`, `messages` and `input_ids`."""

    input: str | None = None
    messages: list[Message] | None = None
    input_ids: list[int] | None = None
    sampling: Sampling = Sampling()
    stream: bool = False
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] = 0
    on_worker_failure: OnWorkerFailure | None = None
    background: bool = False


class Usage(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class TurnStarted(Struct, frozen=True):
    turn: str
    epoch: int
    worker: str
    prompt_tokens: int
    cached_tokens: int


class TurnToken(Struct, frozen=True, omit_defaults=True):
    ids: list[int]
    text: str
    logprobs: list[TokenLogprob] | None = None


class TurnMoved(Struct, frozen=True, rename={"from_": "from"}):
    """`recomputed_tokens`: KV that the new worker had to compute again, history and resumed output."""

    from_: str
    to: str
    attempt: int
    recomputed_tokens: int


class TurnRestarted(Struct, frozen=True):
    """A rerun differs from what this client was sent: forget the tokens so far."""

    reason: str


class TurnCommitted(Struct, frozen=True):
    turn: str
    head: str
    turn_index: int
    usage: Usage
    finish_reason: FinishReason


class TurnAborted(Struct, frozen=True):
    turn: str
    reason: str
    retry_safe: bool
    head: str


class TurnUnknown(Struct, frozen=True):
    """Whether the turn is durable cannot be told now; GET …/turns/{id} tells later."""

    turn: str
    reason: str


EVENT_NAMES: dict[type[Struct], str] = {
    TurnStarted: "turn.started",
    TurnToken: "token",
    TurnMoved: "turn.moved",
    TurnRestarted: "turn.restarted",
    TurnCommitted: "turn.committed",
    TurnAborted: "turn.aborted",
    TurnUnknown: "turn.unknown",
}
"""The `event:` of each message's server-sent event."""


class TurnView(Struct, frozen=True, omit_defaults=True):
    """GET …/turns/{id}, and the answer to POST …/turns without `stream`."""

    turn: str
    state: Literal["running", "committed", "aborted", "unknown"]
    text: str | None = None
    output_ids: list[int] | None = None
    logprobs: list[TokenLogprob] | None = None
    head: str | None = None
    turn_index: int | None = None
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    reason: str | None = None
    retry_safe: bool | None = None
    worker: str | None = None
    moves: int = 0
