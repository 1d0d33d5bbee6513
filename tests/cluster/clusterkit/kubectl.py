"""kubectl, as a user has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Manifest = Mapping[str, Any] | Sequence[Mapping[str, Any]] | str
"""An object, several, or YAML."""


class KubectlFailed(RuntimeError):
    """It ended with another status than 0; the message is what it said."""


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl with one kubeconfig, in one namespace."""

    program: Path
    kubeconfig: Path
    namespace: str = "default"

    def within(self, namespace: str) -> Kubectl:
        """Return the same in another namespace."""
        return Kubectl(self.program, self.kubeconfig, namespace)

    async def raw(self, *args: str, stdin: str | None = None) -> str:
        """Run it and return its output. Raises KubectlFailed."""
        process = await asyncio.create_subprocess_exec(
            str(self.program),
            f"--kubeconfig={self.kubeconfig}",
            f"--namespace={self.namespace}",
            *args,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await process.communicate(None if stdin is None else stdin.encode())
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            raise KubectlFailed(f"kubectl {' '.join(args)}: {err.decode().strip() or out.decode().strip()}")
        return out.decode()

    async def apply(self, manifest: Manifest) -> str:
        return await self.raw("apply", "-f", "-", stdin=_text(manifest))

    async def apply_file(self, path: Path) -> str:
        """Apply a file or a folder of files."""
        return await self.raw("apply", "-f", str(path))

    async def get(self, *what: str) -> dict[str, Any]:
        """Return an object, or a list object: `get("pod", "a")`, `get("pods", "-l", "app=x")`."""
        found: dict[str, Any] = json.loads(await self.raw("get", *what, "-o", "json"))
        return found

    async def items(self, *what: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get(*what))["items"]
        return found

    async def wait(self, what: str, condition: str, timeout_s: float = 60.0) -> str:
        """Wait for `condition=Ready`, `jsonpath=…`, `delete`: `wait("pod/a", "condition=Ready")`."""
        return await self.raw("wait", what, f"--for={condition}", f"--timeout={timeout_s:g}s")

    async def delete(self, *what: str) -> str:
        return await self.raw("delete", *what)


def _text(manifest: Manifest) -> str:
    if isinstance(manifest, str):
        return manifest
    if isinstance(manifest, Mapping):
        return json.dumps(manifest)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifest)})
