"""Write the CustomResourceDefinitions: `python -m berth_api.crd [FOLDER]` (default: crds)."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from berth_api.crd.definitions import DEFINITIONS, Definition

_HEAD = "# Generated from api/berth_api/crd by `make crds`; a test fails where the two differ.\n"


class _Dumper(yaml.SafeDumper):
    """Writes a list that occurs twice twice: anchors are for programs."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def text(definition: Definition) -> str:
    """Return a definition's file."""
    return _HEAD + yaml.dump(definition.manifest(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def main(folder: Path) -> None:
    """Write each definition to its file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for definition in DEFINITIONS:
        (folder / f"{definition.plural}.yaml").write_text(text(definition), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "crds"))
