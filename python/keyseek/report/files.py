"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from keyseek.errors import IoError


def write_whole(path: str, text: str) -> None:
    """All of it or nothing."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise IoError(f"cannot write {path}: {error.strerror}", "io") from None
