"""What every policy offers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..block import Attended, Block, Static
from ..prompt import LayerPrompt


class LayerPolicy(ABC):
    """A policy in one layer, after the prompt.

    looks_ahead: it wants to be told, by `foresee`, of the queries of a block before it attends.
    """

    looks_ahead: ClassVar[bool] = False

    def foresee(self, queries: Tensor) -> None:
        """The queries [Hkv, G, q, d] that this layer would make of what the attention of the layer
        before was given; not called in the first layer."""

    @abstractmethod
    def attend(self, block: Block) -> Attended: ...

    def begin_answer(self) -> None:
        """The question is over: what follows is measured."""

    def fork(self) -> LayerPolicy:
        """A second sequence of the same prompt; what the prompt gave is shared."""
        return copy.copy(self)


@dataclass(frozen=True)
class Policy(ABC):
    """Which of the prompt's tokens decoding attends; a value that names its settings.

    budget: vectors attended per query beyond the static tokens; 0 where the policy has none, or
    sets its own.
    """

    family: ClassVar[str]
    budget: int

    @property
    def kind(self) -> str:
        """The policy without its budget."""
        return self.family

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.budget}" if self.budget else self.kind

    def by_layer(self, prompts: Mapping[int, LayerPrompt], static: Static) -> Mapping[int, Policy]:
        """What each layer is given, for a policy that looks at all of them first."""
        return dict.fromkeys(prompts, self)

    @abstractmethod
    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        """Called at the end of prefill, layer by layer."""


def tail_of(budget: int) -> int:
    """How much of a budget is tail: 64 vectors, or a half of a small budget."""
    return min(64, budget // 2)
