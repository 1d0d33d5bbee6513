"""`python -m berth_cli` is `berth`."""

import sys

from berth_cli.main import app

sys.exit(app())
