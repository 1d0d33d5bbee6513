"""The custom resources: pydantic types from which crds/*.yaml are generated (`python -m berth_api.crd`).

A reader calls `InferenceFleet.model_validate(body)` or `StreamingSession.model_validate(body)` with what the API server
sent, and `seconds(text)` on durations. What is written back is `status.model_dump(mode="json", exclude_none=True)`,
which speaks camelCase.

Nothing else in `berth_api` imports this package: a worker needs no pydantic.
"""

from berth_api.crd.base import API_VERSION, GROUP, VERSION
from berth_api.crd.fleet import (
    Autoscaling,
    EngineSettings,
    FleetSpec,
    FleetStatus,
    HuggingFaceModel,
    InferenceFleet,
    ModelSource,
    PvcModel,
    Rollout,
    SecretKeyRef,
)
from berth_api.crd.session import History, LastRecovery, SessionSpec, SessionStatus, StreamingSession
from berth_api.crd.status import Condition
from berth_api.crd.template import EnvVar, PodTemplate, Resources, SecretRef
from berth_api.crd.values import seconds

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "Autoscaling",
    "Condition",
    "EngineSettings",
    "EnvVar",
    "FleetSpec",
    "FleetStatus",
    "History",
    "HuggingFaceModel",
    "InferenceFleet",
    "LastRecovery",
    "ModelSource",
    "PodTemplate",
    "PvcModel",
    "Resources",
    "Rollout",
    "SecretKeyRef",
    "SecretRef",
    "SessionSpec",
    "SessionStatus",
    "StreamingSession",
    "seconds",
]
