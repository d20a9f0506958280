"""faiss IndexFlatIP: every key, in f32, by matrix products over all queries at once."""

from __future__ import annotations

from .base import Knobs, Peer


class FaissFlat(Peer):
    distribution = "faiss-cpu"

    @classmethod
    def variants(cls, n: int) -> list[Knobs]:
        return [{}]

    @classmethod
    def points(cls, n: int, k: int, variant: Knobs) -> list[Knobs]:
        return [{}]

    def __init__(self, keys, variant, threads):
        import faiss

        faiss.omp_set_num_threads(1)
        self._index = faiss.IndexFlatIP(keys.shape[1])
        self._index.add(keys)
        self._queries = 0

    def search(self, queries, k, point):
        self._queries = len(queries)
        return self._index.search(queries, k)[1]

    def nbytes(self):
        return 4 * self._index.ntotal * self._index.d

    def scanned(self):
        return self._queries * self._index.ntotal
