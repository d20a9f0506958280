"""What a thing that is measured has to offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .problem import Problem

Params = dict[str, Any]


@dataclass
class Sample:
    """One run over all test queries; times in microseconds."""

    ids: NDArray[np.int64]
    seconds: float  # of the whole run
    us_per_query: float
    us_per_step_p50: float
    us_per_step_p95: float | None = None
    scanned_fraction: float | None = None
    bytes_read: float | None = None
    expanded: float | None = None


@dataclass
class Built:
    """What building found out: fields of every row of this index."""

    build_s: float
    index_bytes: int
    build_threads: int
    unreachable: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Contender(ABC):
    """One index. Its points are known before it is built, so that nothing is built for rows
    that are there already."""

    index: str
    problem: Problem

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Fields that tell its rows from others', beyond the problem's and the params."""

    @abstractmethod
    def points(self) -> list[Params]:
        """Settings to measure; after building there may be more."""

    @abstractmethod
    def build(self) -> Built: ...

    @abstractmethod
    def measure(self, params: Params, cold: bool) -> Sample: ...

    def caches(self, cold: bool) -> list[bool]:
        """The caches it can be measured with: hot (False) and cold (True)."""
        return [False]

    def notes(self, params: Params) -> dict[str, Any]:
        """More fields of a row, which do not tell it from others."""
        return {}

    def close(self) -> None:
        """Frees what it holds."""
