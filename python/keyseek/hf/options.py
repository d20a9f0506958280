"""The options of a RetrievalCache: named, typed and checked before a prompt is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from .._core import HeadCache
from ..errors import InvalidArgument

# A search of the caller's own: keys [n, d] -> (queries [G, d], k) -> (ids [G, k], scores [G, k]).
SearchKeys = Callable[[NDArray[np.float32], int], tuple[NDArray[Any], NDArray[np.float32]]]
IndexKeys = Callable[[NDArray[np.float32]], SearchKeys]


@dataclass(frozen=True)
class PlanOptions:
    """What keyseek.HeadCache.prefill takes beside a head's tokens; see there."""

    max_error: float = 0.05
    sink: int = 128
    window: int = 512
    horizon: int = 1024
    least_indexed: int = 1024
    pinned: int = 0
    int8_values: bool = False
    scan_novel: bool = True
    share: float = 0.1
    observed: int = 256
    held_out: int = 48
    tail_vectors: int = 64
    least_k: int = 16
    max_k: int = 512
    max_memory: float = 1.6
    rule: str = "top-k"
    retriever: str | None = None
    k: int = 100
    target_recall: float = 0.995
    limit: float | None = None
    index: IndexKeys | None = None
    seed: int = 1

    @classmethod
    def of(cls, **options: Any) -> PlanOptions:
        """From keywords, with an error that names those that there are not."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise InvalidArgument(f"there is no option {name}; options are {', '.join(known)}")
        return cls(**options)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _require_type(field.name, str(field.type), getattr(self, field.name))
        # The cache of one token: whatever is wrong with an option is said here, not after a
        # prompt was read.
        one = np.zeros((1, 1), np.float32)
        HeadCache.prefill(
            one, one, one[:0], 1, scale=1.0, shift=False, threads=1, **self.arguments()
        )

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of HeadCache.prefill."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def least_tokens(self) -> int:
        """A shorter prompt is attended in full."""
        return self.sink + self.window + self.least_indexed


class PlanKeywords(TypedDict, total=False):
    """PlanOptions as keywords, but for max_error."""

    sink: int
    window: int
    horizon: int
    least_indexed: int
    pinned: int
    int8_values: bool
    scan_novel: bool
    share: float
    observed: int
    held_out: int
    tail_vectors: int
    least_k: int
    max_k: int
    max_memory: float
    rule: str
    retriever: str | None
    k: int
    target_recall: float
    limit: float | None
    index: IndexKeys | None
    seed: int


def _require_type(name: str, kind: str, value: Any) -> None:
    """NumPy's numbers count as Python's; True and False are no numbers."""
    if value is None and kind.endswith("| None"):
        return
    kind = kind.removesuffix(" | None")
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(
        value, bool
    )
    fits = {
        "bool": isinstance(value, (bool, np.bool_)),
        "int": number and isinstance(value, (int, np.integer)),
        "float": number,
        "str": isinstance(value, str),
        "IndexKeys": callable(value),
    }
    if not fits[kind]:
        expected = "a function" if kind == "IndexKeys" else f"of type {kind}"
        raise InvalidArgument(f"{name} is {value!r}, must be {expected}")
