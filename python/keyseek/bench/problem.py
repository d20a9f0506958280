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


def read_problem(
    name: str, k: int, *, single: bool, warm: bool, view: dict[str, Any], threads: int
) -> Problem:
    """`view` holds options of keyseek.read_data that apply to captures."""
    capture = re.fullmatch(r"(.*):(L\d+/K\d+)", name)
    if view and not capture:
        raise keyseek.InvalidArgument(
            f"{', '.join(sorted(view))} is for heads of a capture only (x.attn.h5:L11/K0), "
            f"but the data is '{name}'"
        )
    if capture:
        view = {**decode_view_defaults, **view}
    data = keyseek.read_data(name, k=k, threads=threads, **view)
    truth = data.truth_ids[:, :k]
    if truth.shape[1] < k:
        truth = keyseek.exact_knn(data.keys, data.queries, k, threads=threads)[0]
    short = f"{Path(capture[1]).name}:{capture[2]}" if capture else Path(name).name
    return Problem(
        name=short,
        data=data,
        truth=truth,
        k=k,
        group=1 if single else data.group,
        warm=warm and not single,
        view=view,
    )
