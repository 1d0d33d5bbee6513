"""How the operator finds its own pods among all others."""

from __future__ import annotations

import pytest

from berth_operator.kube import labels
from berth_operator.model import FleetKey, Place
from kubekit.bodies import FLEET, pod

PLACE = Place(FLEET, 3, "0a1b2c3d")


def test_a_pods_labels_tell_its_place() -> None:
    assert labels.of(PLACE) == {
        "app.kubernetes.io/name": "berth-worker",
        "app.kubernetes.io/managed-by": "berth-operator",
        "berth.dev/fleet": "tiny",
        "berth.dev/revision": "0a1b2c3d",
        "berth.dev/ordinal": "3",
    }
    assert labels.place_of(pod(3)) == PLACE


def test_its_name_does_too() -> None:
    assert pod(3)["metadata"]["name"] == "tiny-0a1b2c3d-3"


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("app.kubernetes.io/managed-by", "Helm"),
        ("berth.dev/fleet", None),
        ("berth.dev/revision", None),
        ("berth.dev/ordinal", None),
        ("berth.dev/ordinal", "first"),
        ("berth.dev/ordinal", "-1"),
    ],
)
def test_a_pod_with_other_labels_is_not_ours(label: str, value: str | None) -> None:
    body = pod(3)
    body["metadata"]["labels"].pop(label)
    if value is not None:
        body["metadata"]["labels"][label] = value
    assert labels.place_of(body) is None


def test_nor_is_one_without_any() -> None:
    body = pod(3)
    del body["metadata"]["labels"]
    assert labels.place_of(body) is None


def test_nor_is_a_copy_under_another_name() -> None:
    """It would take the place of the worker that it was copied from."""
    body = pod(3)
    body["metadata"]["name"] = "debug"
    assert labels.place_of(body) is None


def test_selectors() -> None:
    assert labels.selector(FleetKey("team", "tiny")) == "app.kubernetes.io/name=berth-worker,berth.dev/fleet=tiny"
    assert labels.OURS == "app.kubernetes.io/managed-by=berth-operator,app.kubernetes.io/name=berth-worker"
