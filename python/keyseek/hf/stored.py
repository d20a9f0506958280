"""The type in which a head's keys and values are stored."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidArgument

# By the names that a HeadCache has for them.
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
_TYPES = tuple(DTYPES.values())
# Tokens to come may be this much larger than the largest of the prompt.
_HEADROOM = 8.0
# Rounding to float16 costs a row at most 2^-11 of itself. What its smallest numbers cost on top may
# come to as much, or to next to nothing beside the other rows: attention adds them up.
_OF_ITSELF = 2.0**-10
_OF_THE_OTHERS = 2.0**-16


def stored_dtype(keys: Tensor, values: Tensor, wanted: torch.dtype | str | None) -> torch.dtype:
    """`wanted`, or what the model gives if that is None, or what keys and values [.., n, d] need if
    it is "auto".

    That is float16, if they fit with room for larger ones and none of their rows is lost below its
    smallest numbers; else bfloat16 if the model gives that; else float32. Throws InvalidArgument
    where a type that was asked for overflows.
    """
    if wanted is None:
        return keys.dtype
    if isinstance(wanted, torch.dtype):
        largest = torch.finfo(wanted).max
        for name, states in (("keys", keys), ("values", values)):
            most = float(states.abs().max()) if states.numel() else 0.0
            if largest < most < float("inf"):
                raise InvalidArgument(
                    f"{name} have an element of {most:g}, beyond the largest {_name(wanted)}: "
                    "choose dtype='auto' or torch.float32"
                )
        return wanted
    if _fits_f16(keys) and _fits_f16(values):
        return torch.float16
    return torch.bfloat16 if keys.dtype == torch.bfloat16 else torch.float32


def checked_dtype(dtype: torch.dtype | str | None) -> torch.dtype | str | None:
    """The option `dtype` of a RetrievalCache."""
    if dtype is None or dtype == "auto" or dtype in _TYPES:
        return dtype
    raise InvalidArgument(
        f"dtype is {dtype!r}, must be 'auto', torch.float16, torch.bfloat16, torch.float32, or "
        "None for what the model gives"
    )


def dtype_name(dtype: torch.dtype | str | None) -> str | None:
    """The name that `dtype_named` takes."""
    return _name(dtype) if isinstance(dtype, torch.dtype) else dtype


def dtype_named(name: str | None) -> torch.dtype | str | None:
    return next((each for each in _TYPES if _name(each) == name), name)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _fits_f16(states: Tensor) -> bool:
    if states.dtype == torch.float16 or states.numel() == 0:
        return True
    own = states.float()
    most = float(own.abs().max())
    if most * _HEADROOM >= torch.finfo(torch.float16).max:
        return False
    lost, size = (own.half().float() - own).norm(dim=-1), own.norm(dim=-1)
    typical = size.square().mean().sqrt()
    return bool(((lost <= _OF_ITSELF * size) | (lost <= _OF_THE_OTHERS * typical)).all())
