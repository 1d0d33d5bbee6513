"""The models that come inside the wheel, so that a fleet answers sensibly on any machine, with no download.

Nothing heavy is imported here: resolving a name must be possible before anybody has decided to load torch.
"""

from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).resolve().parent

BUILTIN_MODELS: Final[dict[str, Path]] = {"berth-tiny": _HERE / "berth_tiny"}
"""Name, as given to ``--model``, to its checkpoint folder (Hugging Face layout)."""


def resolve(name_or_path: str) -> Path:
    """The checkpoint folder that `name_or_path` means: a built-in name first, else an existing directory.

    Raises ValueError, naming the built-in models, when it is neither.
    """
    if name_or_path in BUILTIN_MODELS:
        return BUILTIN_MODELS[name_or_path]
    path = Path(name_or_path).expanduser()
    if name_or_path and path.is_dir():
        return path
    known = ", ".join(sorted(BUILTIN_MODELS))
    raise ValueError(f"no model {name_or_path!r}: neither a directory nor a built-in model (built in: {known})")
