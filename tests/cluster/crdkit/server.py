"""The two resources at the API server: made, changed, refused."""

from __future__ import annotations

import re
from typing import Any

from clusterkit.api import Api, ApiError
from crdkit.cases import Spec

PLURALS = {"InferenceFleet": "inferencefleets", "StreamingSession": "streamingsessions"}


def body(kind: str, name: str, spec: Spec | None) -> dict[str, Any]:
    """Return a manifest; without `spec` where it is None."""
    whole = {"apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}
    return whole if spec is None else whole | {"spec": spec}


def path(kind: str, namespace: str, name: str = "") -> str:
    """Return the resource's path, or the collection's."""
    return f"/apis/berth.dev/v1alpha1/namespaces/{namespace}/{PLURALS[kind]}/{name}".rstrip("/")


async def create(api: Api, namespace: str, manifest: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
    """Make an object, strictly: a member nobody knows is an error. Returns it as it is kept."""
    query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
    return await api.call("POST", path(manifest["kind"], namespace), manifest, query=query)


def causes(error: ApiError) -> list[tuple[str, str]]:
    """Return what is wrong with which field; a path written `a[b]` by a map's key reads `a.b`.

    The note that further rules wait until the mistake is mended is not one.
    """
    named = [(re.sub(r"\[([^0-9\]][^\]]*)\]", r".\1", field), message) for field, message in error.causes]
    return [(field, message) for field, message in named if "some validation rules were not checked" not in message]
