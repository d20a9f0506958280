"""RetroInfer: clusters to read, to estimate and to leave out (arXiv 2505.02922)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..block import Attended, Block, Static, Summary, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .scored import logits_of

TOKENS = 16  # of a cluster, on average
SEGMENT = 8192  # tokens that are clustered together
ITERATIONS = 10
# The paper reads 1.8 % of the clusters and estimates 23.2 %.
READ, ESTIMATED = 0.018, 0.232


@dataclass(frozen=True)
class RetroInfer(Policy):
    """Whole clusters of keys as long as they fit into a part of the budget, and for the clusters
    that come next, centroid and mean value, weighted with their size.

    Clusters are spherical, of the keys around their mean, within segments of 8,192 tokens. The two
    zones share the budget as the paper's settings do, counted in vectors. A group shares clusters:
    softmaxes of the centroids' logits are summed.
    """

    family = "retroinfer"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        keys, values = prompt.keys[:, indexed], prompt.values[:, indexed]
        cluster = prompt.once(f"wave index {indexed}", lambda _: wave_index(keys))
        part = READ * TOKENS / (READ * TOKENS + ESTIMATED)
        return RetroInferLayer(
            indexed, keys, values, cluster, self.budget, round(part * self.budget)
        )


def wave_index(keys: Tensor) -> Tensor:
    """The cluster of each key [Hkv, n, d], numbered through all segments: [Hkv, n]."""
    centred = keys - keys.mean(1, keepdim=True)
    segments = max(1, round(keys.shape[1] / SEGMENT))
    parts, first = [], 0
    for part in centred.tensor_split(segments, dim=1):
        count = max(1, part.shape[1] // TOKENS)
        parts.append(first + spherical_k_means(part, count))
        first += count
    return torch.cat(parts, 1)


def spherical_k_means(rows: Tensor, count: int) -> Tensor:
    """The cluster of each row [H, n, d]: the centroid direction of the largest inner product."""
    heads, n, dim = rows.shape
    start = ((torch.arange(count) + 0.5) * (n / count)).long()
    directions = rows[:, start]
    for _ in range(ITERATIONS):
        cluster = (rows @ directions.transpose(1, 2)).argmax(-1)
        sums = torch.zeros(heads, count, dim)
        sums.scatter_add_(1, cluster[..., None].expand(-1, -1, dim), rows)
        norm = sums.norm(dim=-1, keepdim=True)
        # An empty cluster keeps its direction.
        directions = torch.where(norm > 0, sums / norm.clamp(min=1e-20), directions)
    return cluster


class RetroInferLayer(LayerPolicy):
    """cluster: of each indexed token, [Hkv, n]. read: tokens of whole clusters, of the budget."""

    def __init__(
        self, indexed: slice, keys: Tensor, values: Tensor, cluster: Tensor, budget: int, read: int
    ) -> None:
        self._indexed = indexed
        self._cluster = cluster
        self._budget = budget
        self._read = read
        count = int(cluster.max()) + 1
        self.sizes = torch.zeros(len(cluster), count).scatter_add_(
            1, cluster, torch.ones_like(cluster, dtype=torch.float32)
        )
        self.centroids = _means(keys, cluster, self.sizes)
        self._values = _means(values, cluster, self.sizes)

    def zones(self, block: Block) -> tuple[Tensor, Tensor]:
        """Which clusters a step reads, and which it estimates: bool [Hkv, 1, q, clusters]."""
        logits = logits_of(block.queries, self.centroids) * block.scale
        empty = (self.sizes == 0)[:, None, None]
        logits = logits.masked_fill(empty, -torch.inf)
        wanted = logits.softmax(-1).sum(1, keepdim=True).masked_fill(empty, -1)
        order = wanted.argsort(dim=-1, descending=True, stable=True)
        sizes = self.sizes[:, None, None].expand(*order.shape).gather(-1, order)
        tokens = sizes.cumsum(-1)
        reads = tokens <= self._read
        left = self._budget - (sizes * reads).sum(-1, keepdim=True)
        place = torch.arange(order.shape[-1]) - reads.sum(-1, keepdim=True)
        estimates = ~reads & (place < left) & (sizes > 0)
        back = torch.zeros_like(reads)
        return back.scatter(-1, order, reads), back.scatter(-1, order, estimates)

    def attend(self, block: Block) -> Attended:
        reads, estimates = self.zones(block)
        own = self._cluster[:, None, None].expand(*reads.shape[:3], -1)
        group = block.queries.shape[1]
        bias = self.sizes.log()[:, None, None].expand(-1, group, *estimates.shape[2:])
        bias = bias.where(estimates, -torch.inf)
        vectors = estimates.sum(-1).float().mean().item()
        summary = Summary(self.centroids, self._values, bias, vectors)
        # The keys of estimated clusters were read when choosing.
        dim = self.centroids.shape[-1]
        read = 2 * (self.centroids[0].numel() - vectors * dim)
        return attend_chosen(block, self._indexed, reads.gather(-1, own), summary, read)


def _means(rows: Tensor, cluster: Tensor, sizes: Tensor) -> Tensor:
    sums = torch.zeros(*sizes.shape, rows.shape[-1])
    sums.scatter_add_(1, cluster[..., None].expand(-1, -1, rows.shape[-1]), rows)
    return sums / sizes.clamp(min=1)[..., None]
