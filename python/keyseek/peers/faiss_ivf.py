"""faiss IndexIVFFlat: clusters of keys, of which the nprobe best are scanned."""

from __future__ import annotations

import math

from .base import Found, Keys, Knobs, Peer, geometric


class FaissIvf(Peer):
    distribution = "faiss-cpu"

    @classmethod
    def variants(cls, n: int) -> list[Knobs]:
        return [{"nlist": min(n, round(math.sqrt(n) * factor))} for factor in (2, 4, 1)]

    @classmethod
    def points(cls, n: int, k: int, variant: Knobs) -> list[Knobs]:
        return [{"nprobe": probes} for probes in geometric(2, variant["nlist"], 1.35)]

    def __init__(self, keys: Keys, variant: Knobs, threads: int) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)
        d = keys.shape[1]
        self._stats = faiss.cvar.indexIVF_stats
        self._serialize = faiss.serialize_index
        # The index does not own its quantizer.
        self._quantizer = faiss.IndexFlatIP(d)
        self._index = faiss.IndexIVFFlat(
            self._quantizer, d, variant["nlist"], faiss.METRIC_INNER_PRODUCT
        )
        self._index.train(keys)
        self._index.add(keys)
        faiss.omp_set_num_threads(1)

    def search(self, queries: Keys, k: int, point: Knobs) -> Found:
        self._index.nprobe = point["nprobe"]
        self._stats.reset()
        scores, ids = self._index.search(queries, k)
        return ids, scores

    def nbytes(self) -> int:
        return len(self._serialize(self._index))

    def scanned(self) -> int:
        return int(self._stats.ndis)
