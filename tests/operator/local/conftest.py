"""Settings of a fleet whose workers and gateways are small scripts; its Redis is a real one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from berth_operator.local.settings import Commands, LocalSettings, Times

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., LocalSettings]:
    def make(**changes: object) -> LocalSettings:
        commands = Commands(
            worker=(sys.executable, str(FAKES / "fake_worker.py")),
            gateway=(sys.executable, str(FAKES / "fake_gateway.py")),
        )
        times = Times(tick_s=0.2, lock_s=0.2, drain_s=2.0)
        base = LocalSettings(state_dir=tmp_path / "state", model="fake", commands=commands, times=times)
        return replace(base, **changes)

    return make
