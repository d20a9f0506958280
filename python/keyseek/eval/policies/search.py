"""The keys that an index finds: keyseek's full scan, and other libraries' indexes of keys."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..._core import Index
from ...hf.queries import rows
from ...peers import Peer, load_peer
from ...peers.base import Knobs
from ..block import Attended, Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .top import mask_of


@dataclass(frozen=True)
class Flat(Policy):
    """Top-k by keyseek's flat index: a scan in 8 bits, reranked."""

    family = "flat"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        keys = prompt.keys[:, indexed].half()
        return _FlatLayer(
            indexed, [Index.build("flat", own.contiguous()) for own in keys], self.budget
        )


class _FlatLayer(LayerPolicy):
    def __init__(self, indexed: slice, indexes: list[Index], k: int) -> None:
        self._indexed = indexed
        self._indexes = indexes
        self._k = min(k, len(indexes[0]))

    def attend(self, block: Block) -> Attended:
        heads, group, count, _ = block.queries.shape
        ids = torch.empty(heads, count, group, self._k, dtype=torch.long)
        read = 0
        for head, index in enumerate(self._indexes):
            for t in range(count):
                hits = index.search(rows(block.queries[head, :, t]), self._k)
                ids[head, t] = torch.from_numpy(hits.ids)
                read += hits.stats.bytes_read
        chosen = mask_of(ids.transpose(1, 2), len(self._indexes[0]))
        return attend_chosen(block, self._indexed, chosen, read_to_choose=read / (heads * count))


@dataclass(frozen=True)
class _PeerSearch(Policy):
    peer: ClassVar[str]

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        count = indexed.stop - indexed.start
        variant, point = self.settings(load_peer(self.peer).variants(count)[0], count)

        def build(prompt: LayerPrompt) -> list[Peer]:
            kind, threads = load_peer(self.peer), torch.get_num_threads()
            keys = prompt.keys[:, indexed]
            return [kind(own.contiguous().numpy(), variant, threads) for own in keys]

        indexes = prompt.once(f"{self.peer} {indexed}", build)
        return _PeerLayer(indexed, indexes, self.budget, point)

    @abstractmethod
    def settings(self, variant: Knobs, count: int) -> tuple[Knobs, Knobs]:
        """What to build for `count` keys and how to search it, from the peer's first variant."""


class Ivf(_PeerSearch):
    """Top-k by faiss IndexIVFFlat, an eighth of whose clusters are scanned."""

    family = "ivf"
    peer = "faiss-ivf"

    def settings(self, variant: Knobs, count: int) -> tuple[Knobs, Knobs]:
        lists = max(1, min(variant["nlist"], count // 39))  # faiss trains with 39 keys a cluster
        return {"nlist": lists}, {"nprobe": max(1, lists // 8)}


class Hnsw(_PeerSearch):
    """Top-k by faiss IndexHNSWFlat with efSearch of twice k, at least 128."""

    family = "hnsw"
    peer = "faiss-hnsw"

    def settings(self, variant: Knobs, count: int) -> tuple[Knobs, Knobs]:
        return variant, {"efSearch": max(128, 2 * self.budget)}


class _PeerLayer(LayerPolicy):
    def __init__(self, indexed: slice, indexes: list[Peer], k: int, point: Knobs) -> None:
        self._indexed = indexed
        self._indexes = indexes
        self._k = min(k, indexed.stop - indexed.start)
        self._point = point

    def attend(self, block: Block) -> Attended:
        heads, group, count, dim = block.queries.shape
        found, scanned = [], 0
        for head, index in enumerate(self._indexes):
            own = rows(block.queries[head])
            own_ids, _ = index.search(own, self._k, self._point)
            found.append(torch.from_numpy(own_ids).long())
            scanned += index.scanned() or 0
        ids = torch.stack(found).view(heads, group, count, -1)
        chosen = mask_of(ids, self._indexed.stop - self._indexed.start)
        read = 2 * dim * scanned / (heads * count)
        return attend_chosen(block, self._indexed, chosen, read_to_choose=read)
