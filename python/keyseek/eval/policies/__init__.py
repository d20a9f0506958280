"""The policies: which of a prompt's tokens decoding attends."""

from .base import LayerPolicy, Policy
from .exact import Full, OracleTopK
from .h2o import H2O
from .infllm import InfLLM
from .ours import FORMS, Keyseek, Planned
from .quest import Quest
from .search import Flat, Hnsw, Ivf
from .snapkv import SnapKV
from .streaming import Streaming
from .tails import OracleKMeans, OracleSample

__all__ = [
    "FORMS",
    "Flat",
    "Full",
    "H2O",
    "Hnsw",
    "InfLLM",
    "Ivf",
    "Keyseek",
    "LayerPolicy",
    "OracleKMeans",
    "OracleSample",
    "OracleTopK",
    "Planned",
    "Policy",
    "Quest",
    "SnapKV",
    "Streaming",
]
