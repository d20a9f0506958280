"""Attention-aware vector search: the few keys an attention query wants.

    index = keyseek.ProjectionIndex.build(keys, training)     # keys [n, d], training queries
    hits = index.search(queries, k=100, target_recall=0.95)   # the G queries of one step
    hits.ids, hits.scores                                     # [G, 100]

Rows of arrays are vectors and scores are inner products: larger is better. Arrays are read in
place; one that would have to be converted or copied is refused with a clear error, except where
a docstring says that it is copied.
"""

from ._core import (
    Benchmark,
    BuildReport,
    CaptureEntry,
    CaptureInfo,
    CapturedHead,
    DecodeMeasurement,
    DecodePool,
    DecodeSession,
    Dials,
    FlatIndex,
    GraphParams,
    GraphReport,
    HeadCache,
    HeadPlan,
    Hits,
    Measurement,
    OperatingPoint,
    ProjectionIndex,
    RouterParams,
    SearchStats,
    StepStats,
    TrainingQueries,
    active_isa,
    available_isas,
    capture_info,
    exact_knn,
    index_kind,
    measure_decode,
    measure_steps,
    read_capture,
    read_data,
    recall,
    rope_shift,
    sample_training_queries,
    step_heads,
    step_heads_beside_static,
)
from ._core import version as __version__
from .errors import Error, InvalidArgument, IoError

__all__ = [
    "Benchmark",
    "BuildReport",
    "CaptureEntry",
    "CaptureInfo",
    "CapturedHead",
    "DecodeMeasurement",
    "DecodePool",
    "DecodeSession",
    "Dials",
    "Error",
    "FlatIndex",
    "GraphParams",
    "GraphReport",
    "HeadCache",
    "HeadPlan",
    "Hits",
    "InvalidArgument",
    "IoError",
    "Measurement",
    "OperatingPoint",
    "ProjectionIndex",
    "RouterParams",
    "SearchStats",
    "StepStats",
    "TrainingQueries",
    "__version__",
    "active_isa",
    "available_isas",
    "capture_info",
    "exact_knn",
    "index_kind",
    "measure_decode",
    "measure_steps",
    "read_capture",
    "read_data",
    "recall",
    "rope_shift",
    "sample_training_queries",
    "step_heads",
    "step_heads_beside_static",
]
