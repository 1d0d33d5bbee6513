"""StreamingSession: a conversation that is kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from berth_api.crd.base import API_VERSION, Part, Report, Resource, Rule, ruled
from berth_api.crd.status import Conditions, Count, Generation, Time
from berth_api.crd.values import Duration, FleetName


class SessionSpec(Part):
    """What is wanted of a session."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                # Guarded although a default fills it: the default of the whole spec is held to the rule as it stands.
                "!has(oldSelf.fleet) || has(self.fleet) && self.fleet == oldSelf.fleet",
                "fleet cannot be changed: a session belongs to it for life",
                "fleet",
            ),
            Rule(
                "!has(self.hibernateAfter) || !has(self.idleTimeout) || "
                "duration(self.hibernateAfter) < duration(self.idleTimeout)",
                "hibernateAfter must be shorter than idleTimeout, or the session would close before it could hibernate",
                "hibernateAfter",
            ),
        )
    )
    fleet: FleetName = "default"
    """The InferenceFleet, in the same namespace. Cannot be changed: the history is in its model's token ids."""
    idle_timeout: Duration | None = None
    """Closed after so long without a turn, its history with it. Absent: never."""
    hibernate_after: Duration | None = None
    """Gives up its slot after so long without a turn; the next turn computes the KV again. Absent: when
    others need it."""
    max_tokens: Annotated[int, Field(ge=1, le=1 << 24)] | None = None
    """The most tokens of its history, input and output together. Absent: the worker's context length."""
    suspend: bool = False
    """Hold no slot and take no turns until this is false again; the history stays."""
    on_worker_failure: Literal["Continue", "Abort"] = "Continue"
    """What a turn does whose worker dies: go on at another worker from where it was, or end without a trace."""
    deletion_policy: Literal["Close", "Retain"] = "Close"
    """What becomes of the conversation when this resource is deleted: closed, or kept and reached by its name
    over HTTP."""


class History(Report):
    """The committed turns."""

    turns: Count
    """How many."""
    head: Annotated[str, Field(max_length=64)]
    """The id of the history: a hash of all its tokens. Empty before the first turn."""


class LastRecovery(Report):
    """The last time the session lost its worker and went on at another."""

    from_: Annotated[str, Field(alias="from", max_length=512)]
    """The worker it was at."""
    to: Annotated[str, Field(max_length=512)]
    """The worker it went to."""
    reason: Literal["WorkerLost", "Drained"]
    """Whether the worker died or was taken away in order."""
    time: Time
    """When it went on."""


SessionPhase = Literal["Pending", "Bound", "Hibernated", "Suspended", "Closed", "Failed"]


class SessionStatus(Report):
    """What the operator sees of a session. Written on change, and seldom: turns leave no trace in the API server."""

    observed_generation: Generation | None = None
    """The metadata.generation this status is about."""
    phase: SessionPhase | None = None
    """In one word, for people; programs read conditions."""
    worker: Annotated[str, Field(max_length=253)] | None = None
    """The pod whose slot it holds. Absent: it holds none."""
    endpoint: Annotated[str, Field(max_length=2048)] | None = None
    """Where its turns are posted."""
    history: History | None = None
    """Its committed turns, as last seen."""
    recoveries: Count | None = None
    """How often it lost its worker and went on at another."""
    last_recovery: LastRecovery | None = None
    """The last of these."""
    conditions: Conditions = Field(default_factory=list)
    """Ready: a turn would be admitted now. Bound: it holds a slot."""


class StreamingSession(Resource):
    """A conversation that keeps its KV on a worker between turns, and outlives the worker."""

    api_version: Literal["berth.dev/v1alpha1"] = API_VERSION
    kind: Literal["StreamingSession"] = "StreamingSession"
    metadata: dict[str, Any]
    spec: SessionSpec = Field(default_factory=SessionSpec, json_schema_extra={"default": {}})
    """What is wanted."""
    status: SessionStatus | None = None
    """What is; written by the operator."""
