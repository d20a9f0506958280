"""Exceptions of keyseek.

Arrays of the wrong dtype, and what is no array at all, are a TypeError; everything else that is
refused is an Error, whose sentence names the argument and the value.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Error", "InvalidArgument", "IoError", "NoSuchFile", "NotPermitted"]


class Error(RuntimeError):
    """Whatever keyseek refuses to do.

    `code` says why: "invalid_argument", "not_finite", "io", "corrupt" (a file contradicts itself
    or its checksum), "unsupported", or "cancelled" (a progress function returned False).
    """

    code: str

    def __init__(self, sentence: str, code: str = "invalid_argument") -> None:
        super().__init__(sentence)
        self.code = code


class InvalidArgument(Error, ValueError):
    """A value that makes no sense, or NaN or infinity among vectors."""


class IoError(Error, OSError):
    """The operating system refused to open, read, write or rename a file.

    `errno` and `filename` are those of the refusal, None where there is no such number. Where
    Python has an exception of its own for it, it is that as well: a missing file is a
    FileNotFoundError, one that may not be opened a PermissionError.
    """

    def __init__(
        self,
        sentence: str,
        code: str = "io",
        number: int | None = None,
        filename: str | None = None,
    ) -> None:
        super().__init__(sentence, code)
        self.errno = number
        self.filename = filename

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.code, self.errno, self.filename)


class NoSuchFile(IoError, FileNotFoundError):
    """There is no such file."""


class NotPermitted(IoError, PermissionError):
    """The file may not be opened, read or written."""
