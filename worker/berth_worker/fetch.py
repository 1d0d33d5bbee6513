"""`python -m berth_worker.fetch`: a checkpoint from a Hugging Face hub into a folder, for an init container.

Only what a worker reads comes: the weights as safetensors, the configs, the tokenizer, the chat template. What came
whole is not brought again. What is in the folder at the end is compared with what the hub lists: the hub's client takes
a folder with anything in it for good enough when it loses the hub half-way.

Exits with 2 and one line for what a person has to mend (no such model, no access, no space), with 1 and one line for
what may pass (the hub does not answer).
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUFFIXES: Final = (".json", ".jinja", ".safetensors")
_NAMES: Final = ("merges.txt", "tokenizer.model")
_TWICE: Final = "consolidated"
"""Some repositories have their weights a second time, under this name, for another engine."""


class FetchError(Exception):
    """One line for a person; `status` is the exit status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A revision of a repository, and the files of it that a worker reads, with their sizes in bytes."""

    repo: str
    commit: str
    files: dict[str, int]

    def missing(self, folder: Path) -> dict[str, int]:
        """Return the files that are not in the folder, or not whole."""
        return {name: size for name, size in self.files.items() if _size(folder / name) != size}


def wanted(name: str) -> bool:
    """Say whether a worker reads this file of a repository."""
    path = PurePosixPath(name)
    if len(path.parts) > 1 or name.startswith(_TWICE):
        return False
    return path.suffix in _SUFFIXES or name in _NAMES


def find(repo: str, revision: str, token: str | None) -> Snapshot:
    """Ask the hub what there is. Raises `FetchError`."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - reads the environment, which `main` prepares

    info = HfApi(token=token or False).model_info(repo, revision=revision, files_metadata=True)
    files = {one.rfilename: one.size or 0 for one in info.siblings or () if wanted(one.rfilename)}
    if not any(name.endswith(".safetensors") for name in files):
        raise FetchError(f"{repo} at {revision} has no weights as safetensors", status=2)
    return Snapshot(repo, info.sha or revision, files)


def fetch(snapshot: Snapshot, folder: Path, token: str | None) -> None:
    """Bring the snapshot's files into the folder. Raises `FetchError`."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - reads the environment, which `main` prepares

    need, free = sum(snapshot.missing(folder).values()), shutil.disk_usage(folder).free
    if need > free:
        raise _no_space(folder, f"{_bytes(need)} are to come, {_bytes(free)} are free")
    names = list(snapshot.files)
    snapshot_download(
        snapshot.repo, revision=snapshot.commit, local_dir=folder, allow_patterns=names, token=token or False
    )
    if missing := snapshot.missing(folder):
        raise FetchError(f"{snapshot.repo} did not come whole: {', '.join(sorted(missing))}", status=1)


def _download(repo: str, revision: str, folder: Path) -> Snapshot:
    from huggingface_hub.errors import (  # noqa: PLC0415 - reads the environment, which `main` prepares
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = os.environ.get("HF_TOKEN")
    access = "the token in HF_TOKEN has no access" if token else "HF_TOKEN is not set"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(f"--to {folder}: {error.strerror or error}", status=2) from None
    try:
        snapshot = find(repo, revision, token)
        fetch(snapshot, folder, token)
    except FetchError:
        raise
    except GatedRepoError:
        raise FetchError(f"{repo} is gated, and {access}", status=2) from None
    except RepositoryNotFoundError:
        raise FetchError(f"there is no {repo}, or it is private and {access}", status=2) from None
    except RevisionNotFoundError:
        raise FetchError(f"{repo} has no revision {revision}", status=2) from None
    except HFValidationError as error:
        raise FetchError(f"--repo {repo}: {_line(error)}", status=2) from None
    except HfHubHTTPError as error:
        raise _refused(repo, error.response.status_code, access) from None
    except Exception as error:  # of the file system, or of whichever HTTP library the hub's client has
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(folder, _line(error)) from None
        raise FetchError(f"{repo} cannot be had now: {_line(error)}", status=1) from None
    return snapshot


def _refused(repo: str, status: int, access: str) -> FetchError:
    if status in (401, 403):
        return FetchError(f"the hub refuses {repo} ({status}): {access}", status=2)
    if status == 404:
        return FetchError(f"there is no {repo} at this hub", status=2)
    return FetchError(f"the hub answers {status} for {repo}", status=1)


def _no_space(folder: Path, detail: str) -> FetchError:
    return FetchError(f"no space in {folder}: {detail}", status=2)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _line(error: Exception) -> str:
    """The first line of what an error says: a container's log is read one line at a time."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    flags = argparse.ArgumentParser(
        "berth_worker.fetch",
        description="Bring a checkpoint from a Hugging Face hub. HF_TOKEN and HF_ENDPOINT are honoured.",
        allow_abbrev=False,
    )
    flags.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the model's repository")
    flags.add_argument("--revision", default="main", help="a branch, a tag or a commit")
    flags.add_argument("--to", required=True, type=Path, metavar="DIR", help="the folder; made if it is not there")
    return flags


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch, and print one line of JSON with what came."""
    options = parser().parse_args(arguments)
    # Beside the files: a container's home may be read-only, and an interrupted download goes on from there.
    os.environ.setdefault("HF_HOME", str(options.to.absolute() / ".cache"))
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        snapshot = _download(options.repo, options.revision, options.to)
    except FetchError as error:
        _fail(str(error), error.status)
    done = {"event": "fetched", "repo": snapshot.repo, "commit": snapshot.commit, "files": len(snapshot.files)}
    print(json.dumps(done | {"bytes": sum(snapshot.files.values())}), flush=True)  # noqa: T201 - for who reads the log


def _fail(message: str, status: int) -> NoReturn:
    print(f"berth_worker.fetch: error: {message}", file=sys.stderr)  # noqa: T201 - for a person, not for a log
    raise SystemExit(status)


if __name__ == "__main__":
    main()
