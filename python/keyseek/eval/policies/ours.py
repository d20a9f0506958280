"""keyseek's HeadCache as a policy, with its own search or an exact one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..._core import DecodeParams, HeadCache, step_heads
from ...errors import InvalidArgument
from ...hf.queries import rows
from ..block import Attended, Block, Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy, tail_of


@dataclass(frozen=True)
class HeadCachePolicy(Policy):
    """A HeadCache per KV head. `options` are those of HeadCache.prefill that the prompt does not
    give."""

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]: ...

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        kept = DecodeParams().plan_positions(prompt.tokens)
        queries = prompt.queries[:, :, -kept:].transpose(1, 2)  # [Hkv, p, G, d]
        # Queries that are not shifted have no embedding.
        rotary = prompt.rotary if self.options.get("shift", True) else {}
        return KeyseekLayer(
            [
                HeadCache.prefill(
                    keys.half().contiguous(),
                    values.half().contiguous(),
                    rows(own),
                    own.shape[1],
                    scale=prompt.scale,
                    sink=static.sink,
                    window=static.window,
                    threads=torch.get_num_threads(),
                    **rotary,
                    **self.options,
                )
                for keys, values, own in zip(prompt.keys, prompt.values, queries, strict=True)
            ]
        )


@dataclass(frozen=True)
class Planned(HeadCachePolicy):
    """Every head planned to keep `max_error`; the budget follows."""

    family = "planned"
    budget: int = 0
    max_error: float = 0.05

    @property
    def kind(self) -> str:
        return f"keyseek-max_error-{self.max_error:g}"

    @property
    def options(self) -> dict[str, Any]:
        return {"max_error": self.max_error}


@dataclass(frozen=True)
class Keyseek(HeadCachePolicy):
    """Top-k by a search that looks at every key, and the trained tail, at a fixed budget for every
    head.

    form: what is left out or done otherwise, a key of FORMS.
    """

    family = "keyseek"
    form: str = ""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise InvalidArgument(f"form is '{self.form}', must be one of {', '.join(FORMS)}")

    @property
    def kind(self) -> str:
        return f"keyseek-{self.form}" if self.form else "keyseek"

    @property
    def options(self) -> dict[str, Any]:
        tail = 0 if self.form == "no-tail" else tail_of(self.budget)
        return {**given_plan("complete", self.budget, tail), **FORMS[self.form]}


FORMS: dict[str, dict[str, Any]] = {
    "": {},
    "no-tail": {},
    "no-shift": {"shift": False},
    # The prompt's length says which of the two "complete" chose.
    "flat": {"retriever": "flat"},
    "sketch": {"retriever": "sketch"},
    "projection": {"retriever": "projection"},
    "projection-0.98": {"retriever": "projection", "target_recall": 0.98},
    "projection-no-novel": {"retriever": "projection", "scan_novel": False},
    # The limits are in logits and as a share; which leaves about k on average depends on the head.
    "dipr": {"rule": "dipr", "limit": 4.0},
    "mass": {"rule": "mass", "limit": 0.95},
}


@dataclass(frozen=True)
class OracleTrained(HeadCachePolicy):
    """The keys of the largest true logits, and keyseek's trained tail: what keyseek would be if its
    search missed nothing."""

    family = "oracle+trained"

    @property
    def options(self) -> dict[str, Any]:
        plan = given_plan("custom", self.budget, tail_of(self.budget))
        return {**plan, "index": exact_search}


def given_plan(retriever: str, budget: int, tail: int) -> dict[str, Any]:
    """A budget as options of HeadCache.prefill; also a short prompt is retrieved from."""
    return {
        "retriever": retriever,
        "k": budget - tail,
        "tail_vectors": tail,
        "least_indexed": 1,
    }


Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def exact_search(keys: np.ndarray) -> Search:
    """A search (queries [G, d], k) -> (ids, scores) that scans all of keys [n, d] in float32."""
    stored = torch.from_numpy(keys)

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        best = (torch.from_numpy(queries) @ stored.T).topk(min(k, len(stored)))
        return best.indices.numpy(), best.values.numpy()

    return search


class KeyseekLayer(LayerPolicy):
    def __init__(self, heads: list[HeadCache]) -> None:
        self.heads = heads

    def fork(self) -> LayerPolicy:
        return KeyseekLayer([head.copy() for head in self.heads])

    def attend(self, block: Block) -> Attended:
        heads, group, count, _ = block.queries.shape
        first = block.keys.shape[1] - count
        steps, vectors, read = [], 0.0, 0.0
        for t in range(count):
            out = step_heads(
                self.heads,
                rows(block.queries[:, :, t]),
                rows(block.keys[:, first + t]),
                rows(block.values[:, first + t]),
            )
            steps.append(torch.from_numpy(out).view(heads, group, -1))
            vectors += sum(map(_vectors, self.heads)) / heads
            read += sum(map(_bytes, self.heads)) / heads
        return Attended(torch.stack(steps, dim=2), vectors / count, read / count)


def _vectors(head: HeadCache) -> float:
    """Attended per query in the last step, beyond the static tokens."""
    if head.plan.retriever == "everything":
        return head.indexed
    pinned = len(head.pinned)
    return pinned + head.stats.retrieved / head.group + head.plan.tail_vectors


def _bytes(head: HeadCache) -> float:
    if head.plan.retriever == "everything":
        return head.full_bytes
    pinned = 2.0 * len(head.pinned) * (head.dim + head.value_dim)
    # A cache does not know what a custom search reads; ours reads all keys.
    scan = 2.0 * head.indexed * head.dim if head.plan.retriever == "custom" else 0.0
    return pinned + scan + head.stats.bytes_read
