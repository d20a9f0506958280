"""The policies: which of a prompt's tokens decoding attends."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import InvalidArgument
from .base import LayerPolicy, Policy
from .double_sparsity import DoubleSparsity
from .duoattention import DuoAttention, DuoShare
from .exact import Full, OracleTopK
from .freekv import FreeKV
from .h2o import H2O
from .infinigen import InfiniGen
from .infllm import InfLLM
from .kvmerger import KVMerger
from .loki import Loki
from .magicpig import MagicPIG
from .ours import FORMS, Keyseek, OracleTrained, Planned
from .pyramidkv import PyramidKV
from .quest import Quest
from .retroinfer import RetroInfer
from .rocketkv import RocketKV
from .search import Flat, Hnsw, Ivf
from .snapkv import SnapKV
from .sparq import SparQ
from .stored import FlexGen, Kivi, TurboQuant
from .streaming import Streaming
from .tails import OracleKMeans, OracleSample
from .triattention import TriAttention
from .vattention import VAttention

__all__ = [
    "BUDGETED",
    "FORMS",
    "H2O",
    "OWN_BUDGET",
    "PLANNED",
    "DoubleSparsity",
    "DuoAttention",
    "DuoShare",
    "Flat",
    "FlexGen",
    "FreeKV",
    "Full",
    "Hnsw",
    "InfLLM",
    "InfiniGen",
    "Ivf",
    "KVMerger",
    "Keyseek",
    "Kivi",
    "LayerPolicy",
    "Loki",
    "MagicPIG",
    "OracleKMeans",
    "OracleSample",
    "OracleTopK",
    "OracleTrained",
    "Planned",
    "Policy",
    "PyramidKV",
    "Quest",
    "RetroInfer",
    "RocketKV",
    "SnapKV",
    "SparQ",
    "Streaming",
    "TriAttention",
    "TurboQuant",
    "VAttention",
    "policies_of",
]


def _form(form: str) -> Callable[[int], Policy]:
    return lambda budget: Keyseek(budget, form)


# The function that makes a policy of each kind for a budget.
BUDGETED: dict[str, Callable[[int], Policy]] = {
    **{
        kind.family: kind
        for kind in (
            Streaming,
            SnapKV,
            H2O,
            InfLLM,
            Quest,
            SparQ,
            Loki,
            DoubleSparsity,
            InfiniGen,
            FreeKV,
            TriAttention,
            PyramidKV,
            KVMerger,
            DuoAttention,
            RocketKV,
            RetroInfer,
            MagicPIG,
            Ivf,
            Hnsw,
            Flat,
            OracleTopK,
            OracleKMeans,
            OracleSample,
            OracleTrained,
        )
    },
    **{Keyseek(1, form).kind: _form(form) for form in FORMS},
}
PLANNED = {
    policy.kind: policy for policy in (Planned(max_error=error) for error in (0.1, 0.05, 0.02))
}
# Those of others that set their own budgets: by a share, a bound, or bits.
OWN_BUDGET: dict[str, Policy] = {
    policy.kind: policy
    for policy in (
        DuoShare(),
        VAttention(),
        FlexGen(),
        Kivi(bits=2),
        Kivi(bits=4),
        TurboQuant(bits=3),
        TurboQuant(bits=4),
    )
}


def policies_of(kinds: list[str], budgets: list[int]) -> list[Policy]:
    """Policies by their kinds, each at every budget but for those that set their own."""
    own = {**OWN_BUDGET, **PLANNED}
    chosen: list[Policy] = []
    for kind in kinds:
        if kind in own:
            chosen.append(own[kind])
        elif kind in BUDGETED:
            chosen += [BUDGETED[kind](budget) for budget in budgets]
        else:
            known = ", ".join([*BUDGETED, *own])
            raise InvalidArgument(f"policy '{kind}' is not one of {known}")
    return chosen
