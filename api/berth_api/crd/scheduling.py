"""Where a worker's pod may run: Kubernetes' own fields, written out so that a misspelt member is refused.

Only bounds are checked here, and what these fields mean is Kubernetes': the scheduler has the last word, and a rule on
every text of lists three deep would cost the API server more than it is worth.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from berth_api.crd.base import Part, Rule, ruled
from berth_api.crd.values import LabelKey

Texts = Annotated[list[Annotated[str, Field(max_length=253)]], Field(max_length=64)]
LabelKeys = Annotated[list[LabelKey], Field(max_length=16)]
Weight = Annotated[int, Field(ge=1, le=100)]


class Toleration(Part):
    """A taint of nodes that does not keep the pod away."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                "has(self.key) && self.key != '' || has(self.operator) && self.operator == 'Exists'",
                "a toleration without key tolerates every taint: say so with operator Exists",
                "operator",
            ),
            Rule(
                "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
                "operator Exists takes no value",
                "value",
            ),
            Rule(
                "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
                "tolerationSeconds goes with effect NoExecute only",
                "tolerationSeconds",
            ),
        )
    )
    key: Annotated[str, Field(max_length=317)] | None = None
    """The taint's key. Absent: every key."""
    operator: Literal["Exists", "Equal"] | None = None
    """How value is compared. Absent: Equal."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """The taint's value, for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect. Absent: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    """How long the pod stays on a node that gets a NoExecute taint. Absent: for ever."""


class NodeExpression(Part):
    """A condition on a label or a field of nodes."""

    key: LabelKey
    """The label's key, or the field's name."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How it is compared."""
    values: Texts | None = None
    """What it is compared with: none for Exists and DoesNotExist, one number for Gt and Lt."""


NodeExpressions = Annotated[list[NodeExpression], Field(max_length=32)]


class NodeTerm(Part):
    """Conditions on a node that hold together."""

    match_expressions: NodeExpressions | None = None
    """On its labels."""
    match_fields: NodeExpressions | None = None
    """On its fields, such as metadata.name."""


class NodeChoice(Part):
    """Which nodes will do."""

    node_selector_terms: Annotated[list[NodeTerm], Field(min_length=1, max_length=16)]
    """One of these is enough."""


class NodePreference(Part):
    """Which nodes are liked, and how much."""

    weight: Weight
    """Added to a node's score where preference holds, 1 to 100."""
    preference: NodeTerm
    """What is liked."""


class NodeAffinity(Part):
    """Which nodes the pod may run on, and which it likes."""

    required_during_scheduling_ignored_during_execution: NodeChoice | None = None
    """Without it the pod is not scheduled."""
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[list[NodePreference], Field(max_length=16)] | None
    ) = None
    """With it a node scores higher."""


class LabelExpression(Part):
    """A condition on a label of pods or namespaces."""

    key: LabelKey
    """The label's key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it is compared."""
    values: Texts | None = None
    """What it is compared with: none for Exists and DoesNotExist."""


class LabelSelector(Part):
    """Labels that hold together. Empty: everything."""

    match_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] | None = None
    """Labels with exactly these values."""
    match_expressions: Annotated[list[LabelExpression], Field(max_length=16)] | None = None
    """Further conditions."""


class PodTerm(Part):
    """Pods, and what counts as being near them."""

    label_selector: LabelSelector | None = None
    """Which pods."""
    topology_key: LabelKey
    """The label of nodes whose equal values are one place, such as kubernetes.io/hostname."""
    namespaces: Texts | None = None
    """Namespaces of those pods. Neither these nor a selector: the fleet's own."""
    namespace_selector: LabelSelector | None = None
    """The same, by labels of namespaces."""
    match_label_keys: LabelKeys | None = None
    """Labels in which those pods have to equal this one."""
    mismatch_label_keys: LabelKeys | None = None
    """Labels in which those pods have to differ from this one."""


class PodPreference(Part):
    """Pods one likes to be near or far from, and how much."""

    weight: Weight
    """Added to a node's score, 1 to 100."""
    pod_affinity_term: PodTerm
    """Which pods."""


class PodAffinity(Part):
    """Which pods the worker has to be near to, or away from."""

    required_during_scheduling_ignored_during_execution: Annotated[list[PodTerm], Field(max_length=16)] | None = None
    """Without all of these the pod is not scheduled."""
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[list[PodPreference], Field(max_length=16)] | None
    ) = None
    """With these a node scores higher."""


class Affinity(Part):
    """What draws a worker to a node, and what keeps it away."""

    node_affinity: NodeAffinity | None = None
    """By the node's own labels."""
    pod_affinity: PodAffinity | None = None
    """By pods it wants near."""
    pod_anti_affinity: PodAffinity | None = None
    """By pods it wants far."""


class TopologySpreadConstraint(Part):
    """How evenly pods spread over places."""

    max_skew: Annotated[int, Field(ge=1, le=5000)]
    """By how many pods two places may differ."""
    topology_key: LabelKey
    """The label of nodes whose equal values are one place, such as topology.kubernetes.io/zone."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """What becomes of a pod that would break it."""
    label_selector: LabelSelector | None = None
    """Which pods are counted; a fleet's own have the label berth.dev/fleet."""
    min_domains: Annotated[int, Field(ge=1, le=5000)] | None = None
    """Places there have to be; with DoNotSchedule only."""
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    """Whether nodes that affinity excludes are counted."""
    node_taints_policy: Literal["Honor", "Ignore"] | None = None
    """Whether nodes with taints that are not tolerated are counted."""
    match_label_keys: LabelKeys | None = None
    """Labels in which the counted pods have to equal this one."""
