"""Builds the native backend's library with the system's C++ compiler: at first use, or ahead of time for an image.

    python -m berth_kernels.build       beside the package, for machines without a compiler

The library holds every instruction set that its architecture may have and chooses when it is loaded, so that a built
one may be moved between machines. Its name carries a hash of all that it was made from: a stale one is never loaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from berth_kernels.interface import KernelError

SOURCES: Final = Path(__file__).parent / "csrc"
PREBUILT: Final = Path(__file__).parent / "prebuilt"

# Not -ffast-math: it forgets infinities, and masks are made of them.
FLAGS: Final = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-ffp-contract=fast",
    "-Wno-psabi",
]
X86_PATHS: Final = {
    "generic": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16"],
}
"""What the compiler is told for each instruction set."""
PATH_SOURCES: Final = ("tile.cpp", "linear.cpp")
"""What is compiled for each of them."""


def library() -> Path:
    """Return the library's file: the one beside the package, the cached one, or one built now.

    Raises KernelError when it has to be built and cannot be.
    """
    prebuilt = PREBUILT / _name(_sources())
    if prebuilt.exists():
        return prebuilt
    compiler = _compiler()
    target = _cache() / _name(_sources(), _version(compiler))
    if not target.exists():
        _build_once(compiler, target)
    return target


def build(target: Path) -> None:
    """Build the library into the file `target`, all of it or nothing. Raises KernelError."""
    _build(_compiler(), target)


def _name(*parts: bytes) -> str:
    return f"berth-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.so"


def _sources() -> bytes:
    """Return a digest of what makes the library what it is, the compiler aside."""
    files = b"".join(path.name.encode() + path.read_bytes() for path in sorted(SOURCES.iterdir()))
    return hashlib.sha256(files + repr((FLAGS, _paths())).encode()).digest()


def _paths() -> dict[str, list[str]]:
    return dict(X86_PATHS) if platform.machine() in ("x86_64", "AMD64") else {"generic": []}


def _compiler() -> list[str]:
    """Return the compiler's command: $CXX, or the first one there is."""
    if named := os.environ.get("CXX"):
        return named.split()
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise KernelError("no C++ compiler: install g++ or clang++, name one in $CXX, or build ahead of time")


def _version(compiler: list[str]) -> bytes:
    return " ".join(compiler).encode() + _run([*compiler, "--version"])


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "berth" / "kernels"
    except RuntimeError as error:
        raise KernelError(f"no folder for the built library: {error}") from error


def _build_once(compiler: list[str], target: Path) -> None:
    """Build `target` unless another process does so meanwhile: of several workers that start together, one compiles."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                _build(compiler, target)
    except OSError as error:
        raise KernelError(f"cannot keep the built library in {target.parent}: {error.strerror or error}") from error


def _build(compiler: list[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as name:
        folder, paths = Path(name), _paths()
        x86 = ["-DBERTH_X86"] if "avx2" in paths else []
        commands = [[str(SOURCES / "library.cpp"), *x86]]
        for path, flags in paths.items():
            named = [f"-DBERTH_PATH=berth_{path}", f'-DBERTH_NAME="{path}"']
            commands += [[str(SOURCES / source), *named, *flags] for source in PATH_SOURCES]
        objects = [str(folder / f"{number}.o") for number in range(len(commands))]
        compiling = [*compiler, *FLAGS, "-c"]
        with ThreadPoolExecutor(len(commands)) as pool:
            list(pool.map(lambda command, made: _run([*compiling, *command, "-o", made]), commands, objects))
        linked = folder / target.name
        _run([*compiler, "-shared", *objects, "-o", str(linked)])
        linked.replace(target)


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except OSError as error:
        raise KernelError(f"cannot run the C++ compiler {command[0]!r}: {error.strerror or error}") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise KernelError(f"the C++ compiler failed ({' '.join(command)}):\n{said[-2000:]}") from error


def main() -> int:
    """Build beside the package and say where."""
    target = PREBUILT / _name(_sources())
    try:
        build(target)
    except (KernelError, OSError) as error:
        print(f"berth_kernels.build: error: {error}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
        return 1
    for stale in set(PREBUILT.glob("*.so")) - {target}:
        stale.unlink()
    print(target)  # noqa: T201 - for whoever builds an image
    return 0


if __name__ == "__main__":
    sys.exit(main())
