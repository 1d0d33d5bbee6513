"""The native library is built once, whole, and found again; what prevents it is told."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from berth_kernels import build
from berth_kernels.interface import KernelError

FAKE = """#!/bin/sh
# Says what it was asked, and writes its arguments where a compiler would write code.
if [ "$1" = --version ]; then echo fake 1.0; exit; fi
echo "$@" >> "{log}"
while [ $# -gt 1 ]; do if [ "$1" = -o ]; then echo made > "$2"; fi; shift; done
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that takes no time; returns the file with its commands."""
    log, script = tmp_path / "commands", tmp_path / "fake-c++"
    script.write_text(FAKE.format(log=log))
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "prebuilt")
    return log


def links(log: Path) -> int:
    return log.read_text().count("-shared")


def test_it_is_built_once_and_found_again(compiler, tmp_path):
    path = build.library()
    assert path.read_text() == "made\n"
    assert path.parent == tmp_path / "cache" / "berth" / "kernels"
    assert build.library() == path
    assert links(compiler) == 1
    assert sorted(each.suffix for each in path.parent.iterdir()) == [".lock", ".so"]


def test_of_several_at_once_one_builds(compiler):
    with ThreadPoolExecutor(8) as pool:
        assert len({task.result() for task in [pool.submit(build.library) for _ in range(8)]}) == 1
    assert links(compiler) == 1


def test_other_sources_or_another_compiler_are_another_library(compiler, tmp_path, monkeypatch):
    first = build.library()
    monkeypatch.setenv("CXX", f"{tmp_path / 'fake-c++'} -g")
    second = build.library()
    monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-O2"])
    assert len({first, second, build.library()}) == 3
    assert links(compiler) == 3


@pytest.mark.usefixtures("compiler")
def test_one_built_ahead_of_time_needs_no_compiler(monkeypatch, capsys):
    stale = build.PREBUILT / "berth-0.so"
    stale.parent.mkdir()
    stale.touch()
    assert build.main() == 0
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert str(build.library()) == capsys.readouterr().out.strip()
    assert list(build.PREBUILT.iterdir()) == [build.library()]


@pytest.mark.usefixtures("compiler")
def test_a_machine_without_a_compiler_is_told_what_to_do(monkeypatch, capsys):
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(KernelError, match=r"no C\+\+ compiler: install g\+\+ or clang\+\+, name one in \$CXX"):
        build.library()
    assert build.main() == 1
    assert "error: no C++ compiler" in capsys.readouterr().err


@pytest.mark.usefixtures("compiler")
def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(tmp_path):
    script = tmp_path / "fake-c++"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && exit\necho what is this >&2\nexit 3\n')
    with pytest.raises(KernelError, match=r"(?s)compiler failed.*what is this"):
        build.library()
    assert [each.suffix for each in (tmp_path / "cache" / "berth" / "kernels").iterdir()] == [".lock"]


@pytest.mark.usefixtures("compiler")
def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(KernelError, match=r"cannot keep the built library in .*file"):
        build.library()


def test_building_needs_no_torch():
    code = "import sys, berth_kernels.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
