"""The CustomResourceDefinitions: the schemas, and what `kubectl` shows and does with the resources."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from berth_api.crd.base import GROUP, VERSION, Resource
from berth_api.crd.fleet import InferenceFleet
from berth_api.crd.session import StreamingSession
from berth_api.crd.structural import structural


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`; a wide one is shown with `-o wide` only."""

    name: str
    path: str
    text: str
    type: str = "string"
    wide: bool = False

    def schema(self) -> dict[str, Any]:
        """Return the column as the definition has it."""
        schema = {"name": self.name, "type": self.type, "jsonPath": self.path, "description": self.text}
        return schema | ({"priority": 1} if self.wide else {})


@dataclass(frozen=True)
class Definition:
    """How a resource is called, shown and scaled."""

    model: type[Resource]
    plural: str
    short: str
    columns: tuple[Column, ...]
    subresources: dict[str, Any] = field(default_factory=lambda: {"status": {}})

    def manifest(self) -> dict[str, Any]:
        """Return the CustomResourceDefinition."""
        kind = self.model.__name__
        version = {
            "name": VERSION,
            "served": True,
            "storage": True,
            "additionalPrinterColumns": [column.schema() for column in self.columns],
            "subresources": self.subresources,
            "schema": {"openAPIV3Schema": _object(self.model)},
        }
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{self.plural}.{GROUP}"},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {
                    "kind": kind,
                    "listKind": f"{kind}List",
                    "plural": self.plural,
                    "singular": kind.lower(),
                    "shortNames": [self.short],
                    "categories": ["berth"],
                },
                "versions": [version],
            },
        }


def _object(model: type[Resource]) -> dict[str, Any]:
    """Return a whole object's schema: kind, version and metadata are the API server's own to describe."""
    schema = structural(model)
    for own in ("apiVersion", "kind"):
        schema["properties"][own] = {"type": "string"}
    schema["required"] = [name for name in schema["required"] if name != "metadata"]
    return {key: value for key, value in schema.items() if value != []}


def _condition(name: str, member: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].{member}'


_AGE = Column("Age", ".metadata.creationTimestamp", "When it was made.", "date")

FLEETS: Final = Definition(
    InferenceFleet,
    "inferencefleets",
    "ifl",
    (
        Column("Ready", _condition("Ready", "status"), "Whether as many workers serve as are wanted."),
        Column("Replicas", ".status.replicas", "Workers there are.", "integer"),
        Column("Desired", ".status.desiredReplicas", "Workers there should be.", "integer"),
        Column("Slots", ".status.slots", "Slots of the workers that serve.", "integer"),
        Column("Revision", ".status.revision", "What workers are to be like, as a hash.", wide=True),
        _AGE,
        Column("Message", _condition("Ready", "message"), "Why it is ready or not.", wide=True),
    ),
    {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    },
)

SESSIONS: Final = Definition(
    StreamingSession,
    "streamingsessions",
    "ssn",
    (
        Column("Ready", _condition("Ready", "status"), "Whether a turn would be admitted now."),
        Column("Phase", ".status.phase", "How it is, in one word."),
        Column("Fleet", ".spec.fleet", "The fleet it belongs to."),
        Column("Worker", ".status.worker", "The pod whose slot it holds."),
        Column("Recoveries", ".status.recoveries", "How often it went on at another worker.", "integer", wide=True),
        Column("Reason", _condition("Ready", "reason"), "Why it is ready or not, in one word."),
        _AGE,
    ),
)

DEFINITIONS: Final = (FLEETS, SESSIONS)
