"""What every peer's wrapper offers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Knobs = dict[str, Any]
Keys = NDArray[np.float32]
Found = tuple[NDArray[Any], NDArray[np.float32]]  # ids and inner products


class Peer(ABC):
    """One index of a peer's library: inner product, f32 keys [n, d], one thread to search.

    `variants` are the indexes worth building for n keys, and `points` the settings worth
    searching a variant with, from fast to thorough. Together they are wide enough to show the
    peer at its best, and the first variant is the one to take where there is time for one only.
    Both are known before anything is built.
    """

    distribution: ClassVar[str]

    @classmethod
    @abstractmethod
    def variants(cls, n: int) -> list[Knobs]: ...

    @classmethod
    @abstractmethod
    def points(cls, n: int, k: int, variant: Knobs) -> list[Knobs]: ...

    @classmethod
    def version(cls) -> str:
        return version(cls.distribution)

    @abstractmethod
    def __init__(self, keys: Keys, variant: Knobs, threads: int) -> None:
        """Builds with so many threads."""

    @abstractmethod
    def search(self, queries: Keys, k: int, point: Knobs) -> Found:
        """Ids [queries, k], padded with -1, and their inner products, as the library gives them;
        in one call to it on one thread."""

    @abstractmethod
    def nbytes(self) -> int:
        """Size of the index as the library would save it."""

    def scanned(self) -> int | None:
        """Inner products with keys in the last search, where the library counts them."""
        return None


def geometric(first: int, last: int, ratio: float = 2.0) -> list[int]:
    """first, first * ratio, ... and last, as whole numbers."""
    steps = max(0, math.ceil(math.log(last / first) / math.log(ratio))) if last > first else 0
    return sorted({*(round(first * ratio**i) for i in range(steps)), last})


def efforts(k: int, most: int = 2000) -> list[int]:
    """Widths of a graph search (ef, expansion): from k, the least possible, to `most`."""
    return geometric(k, max(k, most))
