"""What a pod refers to: secrets, config maps, claims and tokens, read from the API server when they are needed."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from clusterkit.api import Api, Object
from clusterkit.node import spec
from clusterkit.node.spec import Unsupported

_TOKEN_S = 3600


class NotThere(Exception):
    """The pod refers to what does not exist yet; it is tried again, as a kubelet does."""


@dataclass(frozen=True)
class Sources:
    """One pod's view. Every lookup raises NotThere for what is missing and not optional."""

    api: Api
    pod: Object
    address: str
    host_address: str

    async def secret(self, name: str, *, optional: bool = False) -> dict[str, bytes]:
        found = await self._named("secrets", name, optional=optional)
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}

    async def config_map(self, name: str, *, optional: bool = False) -> dict[str, bytes]:
        found = await self._named("configmaps", name, optional=optional)
        binary = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        return {**binary, **{key: value.encode() for key, value in (found.get("data") or {}).items()}}

    async def claim(self, name: str) -> str:
        """Return the folder of this machine that a claim is bound to: a hostPath or local volume's."""
        found = await self._named("persistentvolumeclaims", name)
        volume = found["spec"].get("volumeName")
        if not volume or found["status"].get("phase") != "Bound":
            raise NotThere(f'persistentvolumeclaim "{name}" not bound')
        source = (await self.api.get(f"/api/v1/persistentvolumes/{volume}"))["spec"]
        for kind in ("hostPath", "local"):
            if kind in source:
                return str(source[kind]["path"])
        raise Unsupported(f"persistent volume {volume}, which is no folder of this machine")

    async def token(self, audience: str | None) -> str:
        """Return a new token of the pod's service account, bound to the pod."""
        metadata = self.pod["metadata"]
        account = self.pod["spec"].get("serviceAccountName", "default")
        bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        asked = {"audiences": [audience] if audience else [], "expirationSeconds": _TOKEN_S, "boundObjectRef": bound}
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        return str((await self.api.create(path, {"spec": asked}))["status"]["token"])

    def field(self, path: str) -> str:
        return spec.field(self.pod, path, self.address, self.host_address)

    async def environment(self, container: Object, base: Mapping[str, str]) -> dict[str, str]:
        """Return the container's environment on top of `base`; later entries may refer to earlier ones."""
        env = dict(base)
        for item in container.get("envFrom", []):
            kind = "secretRef" if "secretRef" in item else "configMapRef"
            read = self.secret if kind == "secretRef" else self.config_map
            found = await read(item[kind]["name"], optional=item[kind].get("optional", False))
            env |= {item.get("prefix", "") + key: value.decode() for key, value in found.items()}
        for item in container.get("env", []):
            source = item.get("valueFrom")
            value = spec.expand(item.get("value", ""), env) if source is None else await self._value(source)
            if value is not None:
                env[item["name"]] = value
        return env

    async def _value(self, source: Object) -> str | None:
        if "fieldRef" in source:
            return self.field(source["fieldRef"]["fieldPath"])
        for kind, read in (("secretKeyRef", self.secret), ("configMapKeyRef", self.config_map)):
            if kind in source:
                ref = source[kind]
                found = await read(ref["name"], optional=ref.get("optional", False))
                if ref["key"] in found:
                    return found[ref["key"]].decode()
                if ref.get("optional", False):
                    return None
                raise NotThere(f"couldn't find key {ref['key']} in {ref['name']}")
        raise Unsupported(f"env from {', '.join(source)}")

    async def _named(self, kind: str, name: str, *, optional: bool = False) -> Object:
        found = await self.api.find(f"/api/v1/namespaces/{self.pod['metadata']['namespace']}/{kind}/{name}")
        if found is None and not optional:
            raise NotThere(f'{kind.removesuffix("s")} "{name}" not found')
        return found or {}
