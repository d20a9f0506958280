"""Exact top-k and a summary of the other keys that is made of the keys alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..block import Attended, Block, Static, Summary, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy, tail_of
from .top import mask_of

ITERATIONS = 8  # of k-means


@dataclass(frozen=True)
class OracleKMeans(Policy):
    """Centroids with the mean of their values and the logarithm of their count as a bias.

    Clusters of keys stand for what is not retrieved, as in RetroInfer (arXiv 2505.02922); a key
    that is retrieved leaves its cluster's count.
    """

    family = "oracle+kmeans"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        tail = tail_of(self.budget)
        keys, values = prompt.keys[:, indexed], prompt.values[:, indexed]
        name = f"{tail} clusters {indexed}"
        cluster = prompt.once(name, lambda _: torch.stack([k_means(own, tail) for own in keys]))
        return _ClustersLayer(indexed, self.budget - tail, keys, values, cluster, tail)


@dataclass(frozen=True)
class OracleSample(Policy):
    """A uniform sample of the keys that are not retrieved, each for its share of them.

    The sampled part of vAttention (arXiv 2510.05688), one sample per head.
    """

    family = "oracle+sample"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        tail = tail_of(self.budget)
        heads, count = prompt.keys.shape[0], indexed.stop - indexed.start
        draw = torch.Generator().manual_seed(prompt.layer)
        sample = torch.rand(heads, count, generator=draw).topk(min(tail, count)).indices
        keys, values = prompt.keys[:, indexed], prompt.values[:, indexed]
        return _SampleLayer(indexed, self.budget - tail, keys, values, sample)


def k_means(keys: Tensor, count: int) -> Tensor:
    """The cluster of each key [n, d], by Lloyd's iterations from evenly spaced keys."""
    centroids = keys[torch.linspace(0, len(keys) - 1, count).long()]
    cluster = torch.cdist(keys, centroids).argmin(1)
    for _ in range(ITERATIONS):
        sums, counts = _sums(keys, cluster, count)
        # An empty cluster keeps its centroid.
        centroids = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        cluster = torch.cdist(keys, centroids).argmin(1)
    return cluster


def _sums(rows: Tensor, cluster: Tensor, count: int) -> tuple[Tensor, Tensor]:
    sums = torch.zeros(count, rows.shape[1]).index_add_(0, cluster, rows)
    return sums, torch.bincount(cluster, minlength=count)


class _TopAndSummary(LayerPolicy):
    """The k best keys by their true logits, and a summary of the others."""

    def __init__(self, indexed: slice, k: int) -> None:
        self._indexed = indexed
        self._k = k

    def attend(self, block: Block) -> Attended:
        logits = block.logits[..., self._indexed]
        best = logits.topk(min(self._k, logits.shape[-1]), dim=-1).indices
        scan = 2 * logits.shape[-1] * block.keys.shape[-1]
        chosen = mask_of(best, logits.shape[-1])
        return attend_chosen(block, self._indexed, chosen, self.summary(best, chosen), scan)

    @abstractmethod
    def summary(self, best: Tensor, chosen: Tensor) -> Summary: ...


class _ClustersLayer(_TopAndSummary):
    def __init__(
        self, indexed: slice, k: int, keys: Tensor, values: Tensor, cluster: Tensor, count: int
    ) -> None:
        super().__init__(indexed, k)
        self._cluster = cluster
        sums = [_sums(own, of, count) for own, of in zip(keys, cluster, strict=True)]
        self._counts = torch.stack([counts for _, counts in sums]).float()
        safe = self._counts.clamp(min=1)[..., None]
        self._keys = torch.stack([total for total, _ in sums]) / safe
        totals = [_sums(own, of, count)[0] for own, of in zip(values, cluster, strict=True)]
        self._values = torch.stack(totals) / safe

    def summary(self, best: Tensor, chosen: Tensor) -> Summary:
        own = self._cluster[:, None, None].expand(*best.shape[:3], -1).gather(-1, best)
        left = self._counts[:, None, None].repeat(1, *best.shape[1:3], 1)
        left.scatter_add_(-1, own, -torch.ones(own.shape))
        return Summary(self._keys, self._values, left.log())


class _SampleLayer(_TopAndSummary):
    def __init__(
        self, indexed: slice, k: int, keys: Tensor, values: Tensor, sample: Tensor
    ) -> None:
        super().__init__(indexed, k)
        self._sample = sample
        self._keys = keys.gather(1, sample[..., None].expand(-1, -1, keys.shape[-1]))
        self._values = values.gather(1, sample[..., None].expand(-1, -1, values.shape[-1]))

    def summary(self, best: Tensor, chosen: Tensor) -> Summary:
        sample = self._sample[:, None, None].expand(*chosen.shape[:3], -1)
        taken = chosen.gather(-1, sample)
        left = (~chosen).sum(-1, keepdim=True)
        share = (left / (~taken).sum(-1, keepdim=True)).log()
        return Summary(self._keys, self._values, share.masked_fill(taken, -torch.inf))
