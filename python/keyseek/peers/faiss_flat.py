"""faiss IndexFlatIP: every key, in f32.

All queries in one call become a matrix product, which is its best case; decoding asks for a few
queries at a time, as one query per call does.
"""

from __future__ import annotations

import numpy as np

from .base import Found, Keys, Knobs, Peer


class FaissFlat(Peer):
    distribution = "faiss-cpu"

    @classmethod
    def variants(cls, n: int) -> list[Knobs]:
        return [{}]

    @classmethod
    def points(cls, n: int, k: int, variant: Knobs) -> list[Knobs]:
        return [{"queries_per_call": "all"}, {"queries_per_call": 1}]

    def __init__(self, keys: Keys, variant: Knobs, threads: int) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._index = faiss.IndexFlatIP(keys.shape[1])
        self._index.add(keys)
        self._queries = 0

    def search(self, queries: Keys, k: int, point: Knobs) -> Found:
        self._queries = len(queries)
        if point["queries_per_call"] == "all":
            scores, ids = self._index.search(queries, k)
            return ids, scores
        each = [self._index.search(query[None], k) for query in queries]
        return np.concatenate([ids for _, ids in each]), np.concatenate([s for s, _ in each])

    def nbytes(self) -> int:
        return int(4 * self._index.ntotal * self._index.d)

    def scanned(self) -> int:
        return int(self._queries * self._index.ntotal)
