"""Numbers in a few bits each: groups of neighbours share a scale and an offset."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

SHARED_BYTES = 4  # a scale and an offset of a group, in half precision


def in_groups(rows: Tensor, bits: int, size: int) -> Tensor:
    """What is read back of rows [..., d] stored in `bits` bits by groups of `size` of the last
    dimension, evenly spaced between the least and the largest of a group."""
    width = rows.shape[-1]
    missing = -width % size
    # A group that is not full is filled up with its own last number, which changes no range.
    last = rows[..., -1:].expand(*rows.shape[:-1], missing)
    grouped = pad(rows, (0, missing))
    grouped[..., width:] = last
    grouped = grouped.unflatten(-1, (-1, size))
    least = grouped.amin(-1, keepdim=True)
    step = (grouped.amax(-1, keepdim=True) - least) / (2**bits - 1)
    # All equal: any step gives the offset back.
    step = step.where(step > 0, 1)
    codes = ((grouped - least) / step).round()
    back: Tensor = (codes * step + least).flatten(-2)[..., :width]
    return back


def bytes_per_number(bits: float, size: int) -> float:
    """What a number in groups of `size` takes, its share of scale and offset included."""
    return bits / 8 + SHARED_BYTES / size
