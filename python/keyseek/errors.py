"""Exceptions of keyseek.

Arrays of the wrong dtype, and what is no array at all, are a TypeError; everything else that is
refused is an Error, whose sentence names the argument and the value.
"""

from __future__ import annotations

__all__ = ["Error", "InvalidArgument", "IoError"]


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
    """The operating system refused to open, read, write or rename a file."""
