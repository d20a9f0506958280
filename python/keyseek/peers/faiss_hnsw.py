"""faiss IndexHNSWFlat.

Graphs of keys alone end early when queries are out of the keys' distribution: that is a
property of the method, not of the settings.
"""

from __future__ import annotations

from .base import Found, Keys, Knobs, Peer, efforts


class FaissHnsw(Peer):
    distribution = "faiss-cpu"

    @classmethod
    def variants(cls, n: int) -> list[Knobs]:
        return [{"M": m, "efConstruction": 200} for m in (32, 16)]

    @classmethod
    def points(cls, n: int, k: int, variant: Knobs) -> list[Knobs]:
        return [{"efSearch": ef} for ef in efforts(k)]

    def __init__(self, keys: Keys, variant: Knobs, threads: int) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)
        self._stats = faiss.cvar.hnsw_stats
        self._serialize = faiss.serialize_index
        self._index = faiss.IndexHNSWFlat(keys.shape[1], variant["M"], faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = variant["efConstruction"]
        self._index.add(keys)
        faiss.omp_set_num_threads(1)

    def search(self, queries: Keys, k: int, point: Knobs) -> Found:
        self._index.hnsw.efSearch = point["efSearch"]
        self._stats.reset()
        scores, ids = self._index.search(queries, k)
        return ids, scores

    def nbytes(self) -> int:
        return len(self._serialize(self._index))

    def scanned(self) -> int:
        return int(self._stats.ndis)
