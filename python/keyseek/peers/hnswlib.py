"""hnswlib, the reference implementation of HNSW."""

from __future__ import annotations

import numpy as np

from .base import Found, Keys, Knobs, Peer, efforts


class Hnswlib(Peer):
    distribution = "hnswlib"

    @classmethod
    def variants(cls, n: int) -> list[Knobs]:
        return [{"M": m, "efConstruction": 200} for m in (32, 16)]

    @classmethod
    def points(cls, n: int, k: int, variant: Knobs) -> list[Knobs]:
        return [{"ef": ef} for ef in efforts(k)]

    def __init__(self, keys: Keys, variant: Knobs, threads: int) -> None:
        import hnswlib

        self._index = hnswlib.Index(space="ip", dim=keys.shape[1])
        self._index.init_index(
            max_elements=len(keys),
            M=variant["M"],
            ef_construction=variant["efConstruction"],
            random_seed=1,
        )
        self._index.add_items(keys, num_threads=threads)
        self._index.set_num_threads(1)

    def search(self, queries: Keys, k: int, point: Knobs) -> Found:
        self._index.set_ef(point["ef"])
        ids, distances = self._index.knn_query(queries, k, num_threads=1)
        return ids.astype(np.int64), 1.0 - distances

    def nbytes(self) -> int:
        return int(self._index.index_file_size())
