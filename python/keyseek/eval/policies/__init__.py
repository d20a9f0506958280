"""The policies: which of a prompt's tokens decoding attends."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import InvalidArgument
from .base import LayerPolicy, Policy
from .exact import Full, OracleTopK
from .h2o import H2O
from .infllm import InfLLM
from .ours import FORMS, Keyseek, OracleTrained, Planned
from .quest import Quest
from .search import Flat, Hnsw, Ivf
from .snapkv import SnapKV
from .streaming import Streaming
from .tails import OracleKMeans, OracleSample

__all__ = [
    "BUDGETED",
    "FORMS",
    "H2O",
    "PLANNED",
    "Flat",
    "Full",
    "Hnsw",
    "InfLLM",
    "Ivf",
    "Keyseek",
    "LayerPolicy",
    "OracleKMeans",
    "OracleSample",
    "OracleTopK",
    "OracleTrained",
    "Planned",
    "Policy",
    "Quest",
    "SnapKV",
    "Streaming",
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


def policies_of(kinds: list[str], budgets: list[int]) -> list[Policy]:
    """Policies by their kinds, each at every budget; planned ones set their own."""
    chosen: list[Policy] = []
    for kind in kinds:
        if kind in PLANNED:
            chosen.append(PLANNED[kind])
        elif kind in BUDGETED:
            chosen += [BUDGETED[kind](budget) for budget in budgets]
        else:
            known = ", ".join([*BUDGETED, *PLANNED])
            raise InvalidArgument(f"policy '{kind}' is not one of {known}")
    return chosen
