"""Kubeconfigs: one cluster, one user with a token."""

from __future__ import annotations

import json
from pathlib import Path


def write(path: Path, *, server: str, ca: Path, token: str, namespace: str = "default") -> Path:
    """Write a kubeconfig for the bearer of `token`; JSON, which YAML contains. Returns `path`."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user", "namespace": namespace}}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))
    return path
