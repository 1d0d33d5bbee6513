"""InferenceFleet: one model served by identical workers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from berth_api.crd.base import API_VERSION, Part, Report, Resource, Rule, ruled
from berth_api.crd.status import Conditions, Count, Generation
from berth_api.crd.template import PodTemplate
from berth_api.crd.values import FLEET_NAME_MAX, LABEL_FORM, Checked, Duration, ObjectName, matching

WORKERS_MAX = 5000
"""Workers of a fleet: as many as a large cluster has nodes."""
SLOTS_MAX = 1 << 16
"""Slots of a worker, as its own flag has it."""

_NAME, _NAME_MESSAGE = LABEL_FORM
Workers = Annotated[int, Field(ge=0, le=WORKERS_MAX)]
Tokens = Annotated[int, Field(ge=1, le=1 << 30)]

_PATH = "must be an absolute path without . and .."


def _check_path(text: str) -> None:
    if not text.startswith("/") or {".", ".."} & set(text.split("/")):
        raise ValueError(_PATH)


class PvcModel(Part):
    """A checkpoint folder on a volume."""

    claim_name: ObjectName
    """The PersistentVolumeClaim, in the fleet's namespace; mounted read-only."""
    path: Annotated[
        str,
        Field(max_length=1024),
        Checked(Rule("self.startsWith('/') && !self.split('/').exists(part, part in ['.', '..'])", _PATH), _check_path),
    ] = "/"
    """The checkpoint's folder within the volume."""


class SecretKeyRef(Part):
    """One value of a Secret."""

    name: ObjectName
    """The Secret, in the fleet's namespace."""
    key: Annotated[
        str,
        Field(max_length=253),
        matching("^[A-Za-z0-9._-]+$", "must be letters, digits, -, _ and ."),
    ] = "token"
    """The key within it."""


class HuggingFaceModel(Part):
    """A repository of the Hugging Face hub."""

    repo: Annotated[
        str,
        Field(max_length=193),
        matching(
            "^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$", "must be a repository such as Qwen/Qwen3-8B"
        ),
    ]
    """The repository, such as Qwen/Qwen3-8B."""
    revision: Annotated[
        str,
        Field(max_length=255),
        matching("^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", "must be a commit, a tag or a branch"),
    ]
    """A commit's hash, best: workers that start at different times must find the same files. A tag or a branch works
    as long as it stays where it is."""
    token_secret_ref: SecretKeyRef | None = None
    """The access token of a repository that wants one."""


class ModelSource(Part):
    """Where the model comes from: exactly one of builtin, pvc and huggingFace."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                "[has(self.builtin), has(self.pvc), has(self.huggingFace)].filter(given, given).size() == 1",
                "exactly one of builtin, pvc and huggingFace must be given",
            )
        )
    )
    builtin: (
        Annotated[
            str,
            Field(max_length=63),
            matching("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", "must be a built-in model's name, such as berth-tiny"),
        ]
        | None
    ) = None
    """A model inside the worker's image: berth-tiny."""
    pvc: PvcModel | None = None
    """A checkpoint folder on a volume."""
    hugging_face: HuggingFaceModel | None = None
    """A repository of the Hugging Face hub."""


class EngineSettings(Part):
    """How workers compute. What is absent is the worker's own default."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                "!has(self.maxTotalTokens) || self.maxTotalTokens >= (has(self.pageSize) ? self.pageSize : 16)",
                "maxTotalTokens must hold a page at least (pageSize, 16 unless given)",
                "maxTotalTokens",
            )
        )
    )
    dtype: Literal["auto", "float32", "bfloat16"] | None = None
    """What is computed in. auto: the checkpoint's own."""
    page_size: Annotated[int, Field(ge=1, le=256)] | None = None
    """Tokens of a KV page."""
    max_total_tokens: Tokens | None = None
    """The KV pool of a worker, in tokens."""
    chunked_prefill_size: Tokens | None = None
    """Prompt tokens a step."""
    max_running: Tokens | None = None
    """Requests in a batch. Absent: slots."""
    context_length: Tokens | None = None
    """The most tokens of history, input and output. Absent: the model's."""
    attention: Literal["reference", "native", "flashinfer", "auto"] | None = None
    """Who computes attention. auto: the best that is there."""
    mixed_chunk: bool | None = None
    """Whether decodes and prefill chunks share a step."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Compute threads of a worker on CPUs."""


class Autoscaling(Part):
    """How many workers there are, by how many slots are taken. The number is in status.desiredReplicas."""

    model_config = ConfigDict(
        json_schema_extra=ruled(Rule("self.min <= self.max", "min must not be more than max", "min"))
    )
    min: Workers
    """The fewest workers. With 0 the fleet rests while nobody wants a slot."""
    max: Annotated[int, Field(ge=1, le=WORKERS_MAX)]
    """The most workers."""
    buffer_slots: Annotated[int, Field(ge=0, le=WORKERS_MAX * SLOTS_MAX)] = 0
    """Free slots to keep ready for sessions that come; above 0 there is always a worker."""
    scale_down_stabilization: Duration = "5m"
    """How long fewer workers must have been enough before one goes."""


class Rollout(Part):
    """How workers are replaced when the fleet's spec changes. Absent: one more at a time, or, with devices such as GPUs
    asked for, one fewer."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule("self.maxSurge > 0 || self.maxUnavailable > 0", "maxSurge and maxUnavailable must not both be 0")
        )
    )
    max_surge: Workers = 0
    """Workers there may be beyond the wanted number."""
    max_unavailable: Workers = 0
    """Workers that may be missing from the wanted number."""


class FleetSpec(Part):
    """What is wanted of a fleet."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                "self.model == oldSelf.model",
                "model cannot be changed: sessions belong to it. Make another fleet",
                "model",
            ),
            Rule("!has(self.replicas) || !has(self.autoscaling)", "replicas and autoscaling must not both be given"),
            Rule(
                "!has(self.autoscaling) || self.autoscaling.bufferSlots < self.autoscaling.max * self.slots",
                "bufferSlots must be less than max * slots, or no session could ever be bound with the buffer kept",
                "autoscaling.bufferSlots",
            ),
        )
    )
    model: ModelSource
    """Where the model comes from. Cannot be changed: the histories of sessions are in its token ids."""
    engine: EngineSettings = Field(default_factory=EngineSettings)
    """How workers compute."""
    slots: Annotated[int, Field(ge=1, le=SLOTS_MAX)] = 8
    """Sessions that keep their KV on a worker at once."""
    replicas: Workers | None = None
    """Workers, for kubectl scale too. Neither this nor autoscaling: 1."""
    autoscaling: Autoscaling | None = None
    """Let the number of workers follow the sessions instead."""
    rollout: Rollout | None = None
    """How workers are replaced when the spec changes."""
    drain_deadline: Duration = "2m"
    """How long a worker that is to go waits for its running turns; one that still runs then moves to another worker."""
    template: PodTemplate = Field(default_factory=PodTemplate)
    """What the workers' pods are to have."""


FleetPhase = Literal["Pending", "Progressing", "Ready", "Degraded", "Stalled"]


class FleetStatus(Report):
    """What the operator sees of a fleet."""

    observed_generation: Generation | None = None
    """The metadata.generation this status is about."""
    phase: FleetPhase | None = None
    """In one word, for people; programs read conditions."""
    revision: Annotated[str, Field(max_length=63)] | None = None
    """What the spec says of a worker, as a hash: the label berth.dev/revision of workers that are up to date."""
    replicas: Count | None = None
    """Workers there are."""
    ready_replicas: Count | None = None
    """Workers that serve."""
    updated_replicas: Count | None = None
    """Workers of the newest revision."""
    desired_replicas: Count | None = None
    """Workers there should be: replicas, or what autoscaling makes of the sessions."""
    slots: Count | None = None
    """Slots of the workers that serve."""
    selector: Annotated[str, Field(max_length=512)] | None = None
    """The workers' pods, as a label selector."""
    conditions: Conditions = Field(default_factory=list)
    """Ready; and Reconciling or Stalled, each only while it holds."""


class InferenceFleet(Resource):
    """One model served by identical workers, on which sessions of the same namespace keep their KV."""

    model_config = ConfigDict(
        json_schema_extra=ruled(Rule(f"self.metadata.name.matches(r'{_NAME}')", _NAME_MESSAGE, "metadata.name"))
    )
    api_version: Literal["berth.dev/v1alpha1"] = API_VERSION
    kind: Literal["InferenceFleet"] = "InferenceFleet"
    metadata: dict[str, Any] = Field(
        json_schema_extra={"properties": {"name": {"type": "string", "maxLength": FLEET_NAME_MAX}}}
    )
    spec: FleetSpec
    """What is wanted."""
    status: FleetStatus | None = None
    """What is; written by the operator."""
