"""The operator's parts against an API server and gateways that are a few dictionaries (`kubekit`), in virtual time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from kubekit.world import World  # noqa: E402 - importable only from here on


@pytest.fixture
def world() -> World:
    """An empty cluster, a gateway without workers, and the operator's parts between them."""
    return World()
