"""The page of settings is complete: each flag of each command stands in its section."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
COMMANDS = {
    "Worker": ["-m", "berth_worker"],
    "Fetch": ["-m", "berth_worker.fetch"],
    "Gateway": ["-m", "berth_gateway"],
    "Operator": ["-m", "berth_operator"],
    "`berth up`": ["-m", "berth_cli", "up"],
}


@pytest.mark.parametrize("section", COMMANDS)
def test_every_flag_is_told(section: str) -> None:
    env = {"PATH": "", "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    help_text = subprocess.run(
        [sys.executable, *COMMANDS[section], "--help"], capture_output=True, text=True, check=True, env=env
    ).stdout
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", help_text)) - {"--help"}
    assert flags, help_text
    told = next(part for part in PAGE.read_text().split("\n## ") if part.startswith(section))
    missing = {flag for flag in flags if not re.search(re.escape(flag) + r"(?![\w-])", told)}
    assert not missing
