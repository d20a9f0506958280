"""What every policy offers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ..block import Attended, Block, Static
from ..prompt import LayerPrompt


class LayerPolicy(ABC):
    """A policy in one layer, after the prompt."""

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

    @abstractmethod
    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        """Called at the end of prefill, layer by layer."""


def tail_of(budget: int) -> int:
    """How much of a budget is tail: 64 vectors, or a half of a small budget."""
    return min(64, budget // 2)
