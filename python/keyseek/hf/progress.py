"""Tells how far the planning of a cache has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

from ..errors import InvalidArgument


class PlanProgress:
    """Counts planned heads for a bar (True), a function of (planned, all), or nobody (False)."""

    def __init__(self, wanted: bool | Callable[[int, int], None]) -> None:
        if not isinstance(wanted, bool) and not callable(wanted):
            raise InvalidArgument(
                f"progress is {wanted!r}, must be True, False or a function of (planned, all)"
            )
        self._wanted = wanted
        self._planned = self._all = 0
        self._bar: Any = None

    def begin(self, count: Callable[[], int]) -> None:
        """Asks how many heads will be planned, unless some are being planned already."""
        if self._wanted is False or 0 < self._planned < self._all:
            return
        self._planned, self._all = 0, count()

    def step(self, heads: int) -> None:
        """So many more heads have been planned."""
        if self._wanted is False:
            return
        self._planned += heads
        if callable(self._wanted):
            self._wanted(self._planned, self._all)
            return
        if self._bar is None:
            self._bar = tqdm(total=self._all, desc="Planning heads", leave=False)
        self._bar.update(heads)
        if self._planned >= self._all:
            self._bar.close()
            self._bar = None
