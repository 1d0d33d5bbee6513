"""Makes the soak's own modules and the fleet kit importable: they are tools, not packages."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [path for path in (str(HERE), str(HERE.parent / "fleet")) if path not in sys.path]
