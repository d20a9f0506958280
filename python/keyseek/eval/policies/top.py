"""Choosing the best."""

from __future__ import annotations

import torch
from torch import Tensor


def top_mask(scores: Tensor, k: int) -> Tensor:
    """True at the k largest of the last dimension, or at all where there are fewer."""
    return mask_of(scores.topk(min(k, scores.shape[-1]), dim=-1).indices, scores.shape[-1])


def mask_of(ids: Tensor, count: int) -> Tensor:
    """True at ids [..., k] out of `count`; negative ids stand for none."""
    mask = torch.zeros(*ids.shape[:-1], count + 1, dtype=torch.bool)
    mask.scatter_(-1, ids.where(ids >= 0, count), True)
    return mask[..., :count]
