"""Files of rows: a JSON object per line, as `keyseek sweep` writes them too.

A run that starts again skips the rows that are there.
"""

from __future__ import annotations

from typing import Any

from keyseek._core import ResultFile, parse_rows

__all__ = ["ResultFile", "Row", "parse_rows"]

Row = dict[str, Any]
