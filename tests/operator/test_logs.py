"""Logs are for machines, line by line, whoever writes them."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from berth_operator.logs import configure
configure("json")
structlog.get_logger("ours").warning("a look failed", key="team/tiny")
logging.getLogger("kopf.clients").error("Request attempt %s failed", "#1")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("library").exception("oh")
logging.getLogger("chatty").info("nobody wants to know")
"""


def test_what_libraries_log_has_the_form_of_ours() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    ours, theirs, failure = (json.loads(line) for line in ended.stderr.splitlines())
    assert (ours["event"], ours["level"], ours["key"]) == ("a look failed", "warning", "team/tiny")
    told = (theirs["event"], theirs["level"], theirs["logger"])
    assert told == ("Request attempt #1 failed", "error", "kopf.clients")
    assert "ZeroDivisionError" in failure["exception"]
    assert ended.stdout == ""
