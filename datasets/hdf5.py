"""HDF5 files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from errors import DatasetError

PAGE = 4096


def check_out(path: Path) -> None:
    """Refuse, before the long part, a path that cannot be written to."""
    if not path.parent.is_dir():
        raise DatasetError(f"--out {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise DatasetError(f"--out {path}: is a folder")


@contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """A file to write; it takes its name only when the block ends without an error.

    Datasets written without filters are contiguous and begin on a page, so they can be mapped.
    """
    check_out(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w", alignment_threshold=PAGE, alignment_interval=PAGE) as file:
            yield file
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
