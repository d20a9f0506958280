"""What is searched, what is trained on, and what counts as right."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import keyseek
from keyseek._core import decode_view_defaults


@dataclass
class Problem:
    name: str  # without folders, as rows carry it
    data: keyseek.Benchmark
    truth: NDArray[np.int64]  # [queries, k]
    k: int
    group: int  # queries of a step
    warm: bool  # a step may start from the hits of the one before
    view: dict[str, Any] = field(default_factory=dict)  # how a capture became this problem

    @property
    def queries(self) -> NDArray[np.float32]:
        return self.data.queries


@dataclass
class Files:
    """A problem's parts in files of their own, as keyseek.datasets.read takes them."""

    keys: str
    queries: str
    train: str | None = None
    truth: str | None = None
    group: int = 1

    @property
    def name(self) -> str:
        return f"{Path(self.keys).name}, {Path(self.queries).name}"

    def read(self) -> keyseek.Benchmark:
        read = keyseek.datasets.read
        return keyseek.Benchmark(
            read(self.keys),
            read(self.queries),
            learn=read(self.train) if self.train else None,
            truth_ids=read(self.truth, ids=True) if self.truth else None,
            group=self.group,
        )


def read_problem(
    source: str | Files, k: int, *, single: bool, warm: bool, view: dict[str, Any], threads: int
) -> Problem:
    """`source`: a data name or files. `view` holds options of keyseek.read_data that apply to
    captures."""
    if isinstance(source, Files):
        if view:
            raise keyseek.InvalidArgument(
                f"{', '.join(sorted(view))} is for heads of a capture only"
            )
        name, data = source.name, source.read()
    else:
        name, data, view = read_data(source, k, view, threads)
    truth = data.truth_ids[:, :k]
    if truth.shape[1] < k:
        truth = keyseek.exact_knn(data.keys, data.queries, k, threads=threads)[0]
    return Problem(
        name=name,
        data=data,
        truth=truth,
        k=k,
        group=1 if single else data.group,
        warm=warm and not single,
        view=view,
    )


def read_data(
    name: str, k: int, view: dict[str, Any], threads: int
) -> tuple[str, keyseek.Benchmark, dict[str, Any]]:
    """Short name, data, and how a capture became them."""
    capture = re.fullmatch(r"(.*):(L\d+/K\d+)", name)
    if view and not capture:
        raise keyseek.InvalidArgument(
            f"{', '.join(sorted(view))} is for heads of a capture only (x.attn.h5:L11/K0), "
            f"but the data is '{name}'"
        )
    if capture:
        view = {**decode_view_defaults, **view}
    data = keyseek.read_data(name, k=k, threads=threads, **view)
    short = f"{Path(capture[1]).name}:{capture[2]}" if capture else Path(name).name
    return short, data, view
