"""`berth up --json` with the small scripts of tests/operator/local/fakes as workers and gateways."""

import asyncio
import sys
from pathlib import Path

from berth_cli.report import JsonReport
from berth_cli.up import keep
from berth_operator.local.settings import Commands, LocalSettings, Times

FAKES = Path(__file__).parents[2] / "operator" / "local" / "fakes"

commands = Commands(
    worker=(sys.executable, str(FAKES / "fake_worker.py")), gateway=(sys.executable, str(FAKES / "fake_gateway.py"))
)
settings = LocalSettings(Path(sys.argv[1]), "fake", commands=commands, times=Times(drain_s=2.0))
asyncio.run(keep(settings, JsonReport()))
