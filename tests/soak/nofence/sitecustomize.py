"""The negative control: with this directory on PYTHONPATH a gateway's commit no longer compares its fence.

Python imports `sitecustomize` by itself at start, so the product needs no flag for its own sabotage. A control that
finds nothing to cut must fail loudly, or it would prove nothing.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

SCRIPTS = "berth_gateway.ledger.scripts"
FENCE = "if not holds(session, fence) then return fence_lost(fence) end"
PARENT = "session.head ~= args.parent or "


class _Cutting(SourceFileLoader):
    """Loads the scripts' module and cuts the fence out of what it reads."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        read = module.source

        def source(path: str) -> str:
            text: str = read(path)
            if path != "commit.lua":
                return text
            if FENCE not in text or PARENT not in text:
                raise RuntimeError("commit.lua has no fence where the negative control expects it")
            return text.replace(FENCE, "").replace(PARENT, "")

        module.source = source  # type: ignore[attr-defined]


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != SCRIPTS:
            return None
        spec = PathFinder.find_spec(fullname, path)  # type: ignore[arg-type]
        if spec is not None and spec.origin is not None:
            spec.loader = _Cutting(fullname, spec.origin)
        return spec


sys.meta_path.insert(0, _Finder())
