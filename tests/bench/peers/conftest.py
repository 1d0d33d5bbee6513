"""Makes the comparison's own modules importable: they are tools, not packages."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
OWN = (HERE, HERE / "hosts", HERE.parent, HERE.parents[1] / "fleet")
sys.path[:0] = [str(path) for path in OWN if str(path) not in sys.path]
