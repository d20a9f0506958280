"""Vectors and ids in the files that other programs write, as NumPy arrays.

    keys = keyseek.datasets.read("base.fvecs")
    keyseek.datasets.write("keys.fbin", keys)
    queries = keyseek.datasets.read("bench.hdf5:test")

The name says the format: .fbin, .f16bin, .i8bin, .u8bin, .fvecs, .bvecs and .npy hold vectors,
.ibin, .ivecs and .npy ids; "x.hdf5:test" is a dataset of an HDF5 file, "x.parquet:text" a column of
a Parquet file (which needs pyarrow). A file that contradicts itself is refused with its name and
the value; one that is written appears whole or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._core import read_ids, read_vectors, write_ids, write_vectors
from .errors import Error, InvalidArgument, IoError

__all__ = ["read", "write"]

_COLUMN = "vector"


def read(
    name: str | os.PathLike[str], *, ids: bool | None = None, trusted: bool = False
) -> NDArray[Any]:
    """Rows of a file: vectors [n, d] float32, float16 or int8; or ids [n, k] int64, -1 for none.

    Unsigned bytes come as float32, float64 is rounded to it. ids: whether they are ids; None: as
    the extension says, .npy by its element type, HDF5 and Parquet hold vectors. A dataset or column
    that is the only one needs no name. trusted: as of keyseek.read_data.
    """
    path = os.fspath(name)
    if _parquet(path):
        return _read_parquet(path)
    extension = Path(path).suffix.lower()
    if ids or (ids is None and extension in (".ibin", ".ivecs")):
        return read_ids(path, trusted=trusted)
    if ids is None and extension == ".npy":
        try:
            return read_vectors(path)
        except Error as error:
            if error.code != "unsupported" or "vectors must be" not in str(error):
                raise
        return read_ids(path)
    return read_vectors(path, trusted=trusted)


def write(name: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Writes rows: vectors (float32, float16, bfloat16, int8, uint8) or ids (int64, int32, uint32).

    The extension says the format and the element type: .fbin and .fvecs take any vectors, .f16bin
    rounds floats, .i8bin takes int8, .u8bin and .bvecs whole numbers from 0 to 255. An HDF5 or
    Parquet file is made with one dataset or column ("x.parquet": "vector"); an HDF5 file that is
    there already is refused, since it may hold more.
    """
    path = os.fspath(name)
    dtype = getattr(array, "dtype", None)
    if _parquet(path):
        _write_parquet(path, array)
    elif dtype == np.uint8:
        write_vectors(path, array.astype(np.float32))
    elif dtype in (np.int64, np.int32, np.uint32):
        write_ids(path, array)
    else:
        write_vectors(path, array)


def _parquet(path: str) -> tuple[str, str] | None:
    """File and column, if it is a Parquet file's name."""
    for file, column in ((path, ""), path.rpartition(":")[::2]):
        if file.lower().endswith(".parquet"):
            return file, column
    return None


def _pyarrow(path: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InvalidArgument(
            f"{path}: Parquet is read and written by pyarrow, which is not installed "
            "(pip install 'keyseek[parquet]')",
            "unsupported",
        ) from None
    return pyarrow


def _read_parquet(path: str) -> NDArray[Any]:
    file, column = _parquet(path) or (path, "")
    arrow = _pyarrow(file)
    try:
        names = arrow.parquet.read_schema(file).names
        if not column and len(names) == 1:
            column = names[0]
        if column not in names:
            said = f"has no column '{column}', it holds" if column else "say which is meant of"
            raise InvalidArgument(f"{file}: {said} {', '.join(names)}")
        values = arrow.parquet.read_table(file, columns=[column]).column(0).combine_chunks()
    except arrow.ArrowInvalid as error:
        raise Error(f"{file}: {error}", "corrupt") from None
    except OSError as error:
        raise IoError(f"cannot read {file}: {error}", number=error.errno, filename=file) from None
    return _rows_of(arrow, values, f"{file}:{column}")


def _rows_of(arrow: Any, values: Any, name: str) -> NDArray[Any]:
    """A column of lists as a matrix."""
    kind = values.type
    lists = arrow.types.is_list(kind) or arrow.types.is_large_list(kind)
    if not (lists or arrow.types.is_fixed_size_list(kind)):
        raise Error(f"{name} holds {kind}, vectors must be lists of numbers", "unsupported")
    if values.null_count:
        missing = values.is_null().to_numpy(zero_copy_only=False).argmax()
        raise Error(f"{name}: row {missing} is null", "corrupt")
    lengths = values.value_lengths().to_numpy() if len(values) else np.zeros(0)
    if len(values) == 0 or lengths[0] == 0:
        raise Error(f"{name}: {len(values)} rows, the first of them empty: no vectors", "corrupt")
    ragged = np.flatnonzero(lengths != lengths[0])
    if ragged.size:
        row = ragged[0]
        raise Error(
            f"{name}: row {row} has dimension {lengths[row]}, but row 0 has {lengths[0]}", "corrupt"
        )
    flat = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
    kept = (np.float32, np.float16, np.int8)
    if flat.dtype in kept:
        return np.ascontiguousarray(flat)
    if flat.dtype in (np.float64, np.uint8):
        return np.ascontiguousarray(flat, dtype=np.float32)
    raise Error(
        f"{name} holds {flat.dtype}, vectors must be float16, float32, float64, int8 or uint8",
        "unsupported",
    )


def _write_parquet(path: str, array: NDArray[Any]) -> None:
    file, column = _parquet(path) or (path, "")
    arrow = _pyarrow(file)
    rows = np.ascontiguousarray(array)
    if rows.ndim != 2 or rows.size == 0:
        raise InvalidArgument(f"array has shape {rows.shape}, must be [n, d] and not empty")
    lists = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), rows.shape[1])
    table = arrow.table({column or _COLUMN: lists})
    unfinished = f"{file}.tmp"
    try:
        arrow.parquet.write_table(table, unfinished)
        os.replace(unfinished, file)
    except OSError as error:
        raise IoError(f"cannot write {file}: {error}", number=error.errno, filename=file) from None
    finally:
        Path(unfinished).unlink(missing_ok=True)
