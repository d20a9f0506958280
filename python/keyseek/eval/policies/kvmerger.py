"""KVMerger: runs of similar keys become one (arXiv 2407.08454)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..block import Attended, Block, Static, Summary, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .h2o import received

WIDTH = 5.0  # of the Gaussian, in the units of keys


@dataclass(frozen=True)
class KVMerger(Policy):
    """Neighbours with similar keys are merged into as many vectors as the budget has.

    A run ends where the cosine between neighbours is lowest: the paper's threshold of .75 is for
    half of a cache, here it is what leaves the budget. Of a run, the key that received most
    attention is the pivot; the others count by a Gaussian of their distance to it, for key and
    value alike. A merged vector counts once, as in the paper.
    """

    family = "kvmerger"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        keys, values = prompt.keys[:, indexed], prompt.values[:, indexed]
        hit = prompt.once("h2o", received)[:, indexed]
        run = runs(keys, min(self.budget, keys.shape[1]))
        weight = pivoted(keys, run, hit)
        return _MergedLayer(indexed, merge(keys, run, weight), merge(values, run, weight))


def runs(keys: Tensor, count: int) -> Tensor:
    """To which of `count` runs of neighbours each key [Hkv, n, d] belongs: [Hkv, n], from 0."""
    similar = cosine_similarity(keys[:, 1:], keys[:, :-1], dim=-1)
    ends = similar.topk(count - 1, dim=-1, largest=False).indices
    begins = torch.zeros(keys.shape[:2], dtype=torch.long).scatter_(1, ends + 1, 1)
    return begins.cumsum(1)


def pivoted(keys: Tensor, run: Tensor, hit: Tensor) -> Tensor:
    """The weight of each key in its run, [Hkv, n]; hit: attention received, [Hkv, n]."""
    count = int(run.max()) + 1
    most = torch.full((len(run), count), -torch.inf).scatter_reduce_(1, run, hit, "amax")
    place = torch.arange(run.shape[1]).expand_as(run)
    first = place.where(hit == most.gather(1, run), run.shape[1])
    pivot = torch.full((len(run), count), run.shape[1]).scatter_reduce_(1, run, first, "amin")
    own = pivot.gather(1, run)[..., None].expand(-1, -1, keys.shape[-1])
    apart = (keys - keys.gather(1, own)).square().sum(-1)
    kernel = (-apart / (2 * WIDTH**2)).exp()
    total = torch.zeros(len(run), count).scatter_add_(1, run, kernel)
    return kernel / total.gather(1, run)


def merge(rows: Tensor, run: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of rows [Hkv, n, d] run by run, [Hkv, runs, d]."""
    merged = torch.zeros(len(run), int(run.max()) + 1, rows.shape[-1])
    ids = run[..., None].expand(-1, -1, rows.shape[-1])
    return merged.scatter_add_(1, ids, rows * weight[..., None])


class _MergedLayer(LayerPolicy):
    def __init__(self, indexed: slice, keys: Tensor, values: Tensor) -> None:
        self._indexed = indexed
        self._keys = keys
        self._values = values

    def attend(self, block: Block) -> Attended:
        n = self._indexed.stop - self._indexed.start
        nothing = torch.zeros(1, 1, 1, n, dtype=torch.bool)
        bias = torch.zeros(1, 1, 1, self._keys.shape[1])
        summary = Summary(self._keys, self._values, bias)
        return attend_chosen(
            block, self._indexed, nothing.expand(len(self._keys), -1, -1, -1), summary
        )
