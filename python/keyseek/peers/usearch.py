"""usearch, another HNSW, with f32 vectors."""

from __future__ import annotations

import numpy as np

from .base import Found, Keys, Knobs, Peer, efforts


class Usearch(Peer):
    distribution = "usearch"

    @classmethod
    def variants(cls, n: int) -> list[Knobs]:
        return [{"connectivity": m, "expansion_add": 200} for m in (32, 16)]

    @classmethod
    def points(cls, n: int, k: int, variant: Knobs) -> list[Knobs]:
        return [{"expansion_search": width} for width in efforts(k)]

    def __init__(self, keys: Keys, variant: Knobs, threads: int) -> None:
        from usearch.index import Index

        self._index = Index(ndim=keys.shape[1], metric="ip", dtype="f32", **variant)
        self._index.add(np.arange(len(keys), dtype=np.uint64), keys, threads=threads)
        self._scanned = 0

    def search(self, queries: Keys, k: int, point: Knobs) -> Found:
        self._index.expansion_search = point["expansion_search"]
        matches = self._index.search(queries, k, threads=1)
        self._scanned = matches.computed_distances
        ids = matches.keys.astype(np.int64)
        ids[np.arange(k) >= np.asarray(matches.counts)[:, None]] = -1
        return ids, 1.0 - matches.distances

    def nbytes(self) -> int:
        return int(self._index.serialized_length)

    def scanned(self) -> int:
        return int(self._scanned)
