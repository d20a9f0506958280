"""Whole numbers that a caller hands over, where PyTorch's messages would not name them."""

from __future__ import annotations

import operator
from typing import Any

from ..errors import InvalidArgument


def whole_number(value: Any, name: str, least: int, most: int) -> int:
    """The value as an int. TypeError where it is none (True is none), InvalidArgument where it is
    not in [least, most]."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        kind = type(value).__name__
        raise TypeError(f"{name} is {value!r} ({kind}), must be a whole number")
    number = operator.index(value)
    if not least <= number <= most:
        raise InvalidArgument(f"{name} is {number}, must be in [{least}, {most}]")
    return number
