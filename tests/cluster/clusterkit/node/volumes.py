"""A pod's volumes as folders of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clusterkit.api import Object
from clusterkit.node.sources import NotThere, Sources
from clusterkit.node.spec import Unsupported


async def mount(volumes: list[Object], folder: Path, sources: Sources) -> dict[str, Path]:
    """Make every volume and return its folder by name. Raises NotThere and Unsupported."""
    return {volume["name"]: await _mount(volume, folder / volume["name"], sources) for volume in volumes}


async def _mount(volume: Object, folder: Path, sources: Sources) -> Path:
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    if "persistentVolumeClaim" in volume:
        return Path(await sources.claim(volume["persistentVolumeClaim"]["claimName"]))
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a local folder, at once
    if "emptyDir" in volume:
        return folder
    if "projected" in volume:
        for source in volume["projected"]["sources"]:
            await _project(source, folder, sources)
    elif "secret" in volume:
        # A volume names its secret otherwise than a projection does.
        await _project({"secret": {**volume["secret"], "name": volume["secret"]["secretName"]}}, folder, sources)
    else:
        await _project({key: value for key, value in volume.items() if key != "name"}, folder, sources)
    return folder


async def _project(source: Object, folder: Path, sources: Sources) -> None:
    if "secret" in source or "configMap" in source:
        kind, ref = next(iter(source.items()))
        read = sources.secret if kind == "secret" else sources.config_map
        optional = ref.get("optional", False)
        content = await read(ref["name"], optional=optional)
        _write(folder, _chosen(content, ref.get("items"), optional=optional))
    elif "downwardAPI" in source:
        items = source["downwardAPI"].get("items", [])
        if any("fieldRef" not in item for item in items):
            raise Unsupported("downwardAPI of resources")
        _write(folder, {item["path"]: sources.field(item["fieldRef"]["fieldPath"]).encode() for item in items})
    elif "serviceAccountToken" in source:
        asked = source["serviceAccountToken"]
        _write(folder, {asked["path"]: (await sources.token(asked.get("audience"))).encode()})
    else:
        raise Unsupported(f"volume of {', '.join(source)}")


def _chosen(content: Mapping[str, bytes], items: list[Object] | None, *, optional: bool) -> dict[str, bytes]:
    """Return the files by path: all keys, or the chosen ones."""
    if items is None:
        return dict(content)
    missing = [item["key"] for item in items if item["key"] not in content]
    if missing and not optional:
        raise NotThere(f"references non-existent key: {missing[0]}")
    return {item["path"]: content[item["key"]] for item in items if item["key"] in content}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
