"""What a fleet may say about its workers' pods.

A list of what is allowed, not a pod: volumes, host paths and namespaces, privileges and service accounts are the
operator's to decide, so that whoever may write a fleet gains no more than workers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from berth_api.crd.base import Part, Rule, keyed_by, ruled
from berth_api.crd.scheduling import Affinity, Toleration, TopologySpreadConstraint
from berth_api.crd.values import LabelValue, ObjectName, Quantity, matching

OPERATORS_ENV = ("HF_TOKEN", "POD_IP", "POD_UID")
"""Variables of the worker that the operator sets itself."""
PRIVILEGES = "container.apparmor.security.beta.kubernetes.io/"
"""Annotations by which Kubernetes still lets a pod be unconfined."""
OPERATORS_LABELS = ("app.kubernetes.io/managed-by", "app.kubernetes.io/name")
"""Labels the operator sets itself, beside all of berth.dev/."""

_KEY = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_KEYS = Rule(
    f"self.all(key, key.matches(r'{_KEY}'))",
    "a key is 1 to 63 letters, digits, -, _ and ., with a letter or a digit at both ends; and before it, if at all, "
    "a domain and a slash",
)
_OWN_KEYS = Rule("self.all(key, !key.startsWith('berth.dev/'))", "keys under berth.dev/ are the operator's")
_OWN_LABELS = Rule(
    f"self.all(key, !(key in {list(OPERATORS_LABELS)}))",
    f"{' and '.join(OPERATORS_LABELS)} are set by the operator",
)
_NO_PRIVILEGES = Rule(
    f"self.all(key, !key.startsWith('{PRIVILEGES}'))", "a container's confinement is the operator's to decide"
)


class SecretRef(Part):
    """A Secret of the fleet's namespace."""

    name: ObjectName
    """Its name."""


class EnvVar(Part):
    """A variable of the worker's environment."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                f"!(self.name in {list(OPERATORS_ENV)})", f"{', '.join(OPERATORS_ENV)} are set by the operator", "name"
            )
        )
    )
    name: Annotated[
        str,
        Field(max_length=128),
        matching("^[A-Za-z_][A-Za-z0-9_]*$", "must be letters, digits and _, with no digit first"),
    ]
    """Its name."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its value. No place for secrets: whoever may read the fleet reads it."""


Quantities = Annotated[dict[str, Quantity], Field(max_length=16, json_schema_extra=ruled(_KEYS))]


class Resources(Part):
    """What a worker takes of its node."""

    requests: Quantities = Field(default_factory=dict)
    """What is set aside for it, by resource, such as cpu: 2 or memory: 16Gi."""
    limits: Quantities = Field(default_factory=dict)
    """What it gets at most. Devices belong here, such as nvidia.com/gpu: 1."""


class PodTemplate(Part):
    """What a fleet may say about its workers' pods. What is not here is the operator's to decide."""

    labels: Annotated[
        dict[str, LabelValue],
        Field(max_length=32, json_schema_extra=ruled(_KEYS, _OWN_KEYS, _OWN_LABELS)),
    ] = Field(default_factory=dict)
    """Further labels of the pods."""
    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=16384)]],
        Field(max_length=32, json_schema_extra=ruled(_KEYS, _OWN_KEYS, _NO_PRIVILEGES)),
    ] = Field(default_factory=dict)
    """Further annotations of the pods."""
    image: (
        Annotated[
            str,
            Field(max_length=512),
            matching(r"^[^\s]+$", "must be an image's reference, without blanks"),
        ]
        | None
    ) = None
    """The worker's image. Absent: the operator's default."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When the image is pulled. Absent: Kubernetes' rule (Always for the tag latest, else IfNotPresent)."""
    image_pull_secrets: Annotated[list[SecretRef], Field(max_length=16, json_schema_extra=keyed_by("name"))] = Field(
        default_factory=list
    )
    """Secrets to pull the image with."""
    resources: Resources = Field(default_factory=Resources)
    """What a worker takes of its node. With devices among them, a rollout replaces in place."""
    env: Annotated[list[EnvVar], Field(max_length=64, json_schema_extra=keyed_by("name"))] = Field(default_factory=list)
    """Variables of the worker's environment; no name twice."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32, json_schema_extra=ruled(_KEYS))] = Field(
        default_factory=dict
    )
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(default_factory=list)
    """Taints of nodes that do not keep the pods away."""
    affinity: Affinity | None = None
    """What draws the pods to a node, and what keeps them away."""
    topology_spread_constraints: Annotated[list[TopologySpreadConstraint], Field(max_length=16)] = Field(
        default_factory=list
    )
    """How evenly the pods spread over zones and nodes."""
    priority_class_name: ObjectName | None = None
    """Their PriorityClass."""
    runtime_class_name: ObjectName | None = None
    """Their RuntimeClass, such as nvidia where GPUs need one."""
    scheduler_name: ObjectName | None = None
    """Who schedules them. Absent: the cluster's default scheduler."""
