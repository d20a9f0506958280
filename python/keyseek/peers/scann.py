"""ScaNN: 4-bit anisotropic hashing, with and without a tree, then exact reordering.

Dimensions per block 2 and threshold 0.2 are what its authors publish for inner products. Its
redundant assignment to leaves (SOAR) was tried on attention keys: slower at every recall.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np

from .base import Found, Keys, Knobs, Peer

SHARES_OF_LEAVES = (0.03, 0.045, 0.065, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5)
REORDERED = (2, 3, 4, 6, 8, 10, 15, 20, 30)  # times k


class Scann(Peer):
    distribution = "scann"

    @classmethod
    def variants(cls, n: int) -> list[Knobs]:
        return [{"leaves": round(math.sqrt(n) * factor)} for factor in (1, 2, 0.5, 0)]

    @classmethod
    def points(cls, n: int, k: int, variant: Knobs) -> list[Knobs]:
        leaves = variant["leaves"]
        if leaves == 0:
            return [{"reorder": min(n, k * times)} for times in REORDERED]
        searched = sorted({max(1, round(leaves * share)) for share in SHARES_OF_LEAVES})
        return [
            {"leaves_to_search": count, "reorder": min(n, k * times)}
            for count in searched
            for times in REORDERED
        ]

    def __init__(self, keys: Keys, variant: Knobs, threads: int) -> None:
        import scann

        builder = scann.scann_ops_pybind.builder(keys, 100, "dot_product")
        builder.set_n_training_threads(threads)
        if variant["leaves"]:
            builder.tree(
                num_leaves=variant["leaves"],
                num_leaves_to_search=variant["leaves"],
                training_sample_size=len(keys),
            )
        builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(300)
        self._searcher = builder.build()

    def search(self, queries: Keys, k: int, point: Knobs) -> Found:
        given = {"leaves_to_search": point["leaves_to_search"]} if len(point) > 1 else {}
        ids, scores = self._searcher.search_batched(
            queries, final_num_neighbors=k, pre_reorder_num_neighbors=point["reorder"], **given
        )
        # Where the leaves held fewer than k keys, the rest is no answer.
        return np.where(np.isfinite(scores), ids.astype(np.int64), -1), scores

    def nbytes(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            self._searcher.serialize(folder)
            return sum(file.stat().st_size for file in Path(folder).iterdir())
