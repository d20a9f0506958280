"""The file of results: a JSON object per line, appended and never changed.

It is the file that `keyseek sweep` writes. A run that starts again skips the rows that are there.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any

from keyseek.errors import Error, IoError

Row = dict[str, Any]


class ResultFile:
    """Locked for one run at a time. A last line that was cut off is dropped."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed with this)
        except OSError as error:
            raise IoError(f"cannot open {path}: {error.strerror}", "io") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.rows = self._read()
        except BlockingIOError:
            self._file.close()
            raise IoError(f"{path} is in use by another run", "io") from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> list[Row]:
        self._file.seek(0)
        text = self._file.read()
        whole = text.rfind(b"\n") + 1
        rows = parse_rows(text[:whole].decode(errors="replace"), self.path)
        torn = text[whole:]
        if torn and not torn.startswith(b"{"):
            raise not_results(self.path, len(rows) + 1)
        self._file.truncate(whole)
        return rows

    def has(self, identity: Row) -> bool:
        """Whether some row agrees with all fields of `identity`."""
        missing = object()
        return any(
            all(row.get(name, missing) == value for name, value in identity.items())
            for row in self.rows
        )

    def append(self, row: Row) -> None:
        try:
            self._file.write((json.dumps(row) + "\n").encode())
            os.fsync(self._file)
        except OSError as error:
            raise IoError(f"cannot write {self.path}: {error.strerror}", "io") from None
        self.rows.append(row)


def parse_rows(text: str, path: str) -> list[Row]:
    """The rows of whole lines. Throws Error when one is no JSON object."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise not_results(path, number)
        rows.append(row)
    return rows


def not_results(path: str, line: int) -> Error:
    return Error(f"{path}: line {line} is no JSON object: this is no file of results", "corrupt")
