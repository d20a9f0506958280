"""Decodes known tokens with a policy, and compares the predictions with full attention's."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidArgument
from .ahead import Ahead
from .block import Attended, Block, Static
from .policies import Full, LayerPolicy, Policy
from .prompt import LayerPrompt, Prompt

BLOCK = 64  # tokens that are decoded as one block: larger ones do not fit a cache


@dataclass
class Meter:
    """What the layers reported, summed over queries: error and mass by layer, [Hkv, G]."""

    errors: dict[int, Tensor] = field(default_factory=dict)
    masses: dict[int, Tensor] = field(default_factory=dict)
    vectors: float = 0.0
    bytes: float = 0.0
    steps: int = 0  # of all layers

    def add(self, layer: int, block: Block, attended: Attended) -> None:
        count = block.queries.shape[2]
        error = (attended.out - block.full).norm(dim=-1) / block.full.norm(dim=-1)
        self.errors[layer] = self.errors.get(layer, 0) + error.sum(-1)
        if attended.mass is not None:
            self.masses[layer] = self.masses.get(layer, 0) + attended.mass.sum(-1)
        self.vectors += attended.vectors * count
        self.bytes += attended.bytes * count
        self.steps += count

    def means(self, sums: dict[int, Tensor]) -> dict[int, list[list[float]]]:
        """The means of errors or masses, per query."""
        per_layer = self.steps / max(1, len(self.errors))
        return {layer: (total / per_layer).tolist() for layer, total in sums.items()}


@dataclass(frozen=True)
class Decoded:
    """Log probabilities [m, vocabulary] before each of m gold tokens, and what the layers read."""

    seen: Tensor
    meter: Meter


class PreparedPolicy:
    """A policy after a prompt, ready to decode from it any number of times.

    layers: where the policy decides (None: in all layers of full attention); only these are
    measured, the others attend in full.
    """

    def __init__(
        self, policy: Policy, prompt: Prompt, static: Static, layers: list[int] | None = None
    ) -> None:
        self._prompt = prompt
        self._policed = prompt.layers.keys() if layers is None else layers
        for i in self._policed:
            if i not in prompt.layers:
                raise InvalidArgument(f"layer {i} is not one of full attention, {_list(prompt)}")
        chosen = policy.by_layer({i: prompt.layers[i] for i in self._policed}, static)
        self._layers: dict[int, LayerPolicy] = {
            i: chosen.get(i, Full()).prepare(layer, static) for i, layer in prompt.layers.items()
        }

    def decode(self, network: Any, question: list[int], answer: list[int]) -> Decoded:
        """Decodes a question and then its gold answer, token by token as far as the policy can
        tell. What the layers report is of the answer's tokens alone.
        """
        if len(question) < 1 or len(answer) < 2:
            raise InvalidArgument(
                f"question has {len(question)} tokens and answer {len(answer)}, must be at least "
                "1 and 2"
            )
        meter = Meter()
        ahead = Ahead(network) if any(p.looks_ahead for p in self._layers.values()) else None
        observer = _Observer(self._layers, self._policed, meter, ahead)
        cache = self._prompt.fork(observer.layer)
        with torch.inference_mode(), ahead or nullcontext():
            for piece in _pieces(question):
                asked = _forward(network, cache, piece)
            observer.begin_answer()
            answered = [_forward(network, cache, piece) for piece in _pieces(answer[:-1])]
        return Decoded(torch.cat([asked[-1:], *answered]), meter)


class _Observer:
    """Hands out forks of the layers' policies that report to a meter."""

    def __init__(
        self,
        layers: dict[int, LayerPolicy],
        policed: Collection[int],
        meter: Meter,
        ahead: Ahead | None,
    ) -> None:
        self._layers = layers
        self._policed = policed
        self._meter = meter
        self._ahead = ahead
        self._forks: list[LayerPolicy] = []
        self._measuring = False

    def layer(self, prompt: LayerPrompt) -> _ObservedLayer:
        fork = self._layers[prompt.layer].fork()
        self._forks.append(fork)
        return _ObservedLayer(self, prompt.layer, fork)

    def foresee(self, layer: int, policy: LayerPolicy, shape: torch.Size) -> None:
        if policy.looks_ahead and self._ahead is not None and layer in self._ahead.queries:
            policy.foresee(self._ahead.queries[layer].view(shape))

    def begin_answer(self) -> None:
        self._measuring = True
        for fork in self._forks:
            fork.begin_answer()

    def add(self, layer: int, block: Block, attended: Attended) -> None:
        if self._measuring and layer in self._policed:
            self._meter.add(layer, block, attended)


class _ObservedLayer:
    def __init__(self, observer: _Observer, layer: int, policy: LayerPolicy) -> None:
        self._observer = observer
        self._layer = layer
        self._policy = policy

    def attend(self, block: Block) -> Tensor:
        self._observer.foresee(self._layer, self._policy, block.queries.shape)
        attended = self._policy.attend(block)
        self._observer.add(self._layer, block, attended)
        return attended.out


def _list(prompt: Prompt) -> str:
    return ", ".join(map(str, prompt.layers))


def _pieces(ids: list[int]) -> list[list[int]]:
    return [ids[begin : begin + BLOCK] for begin in range(0, len(ids), BLOCK)]


def _forward(network: Any, cache: Any, ids: list[int]) -> Tensor:
    out = network(torch.tensor([ids]), past_key_values=cache, use_cache=True)
    logits: Tensor = out.logits[0]
    return logits.float().log_softmax(-1)


def divergence(full: Decoded, other: Decoded) -> Tensor:
    """KL(full || other) of each prediction, in nats."""
    return (full.seen.exp() * (full.seen - other.seen)).sum(-1)


def agreement(full: Decoded, other: Decoded) -> Tensor:
    """Whether each prediction's likeliest token is full attention's."""
    return full.seen.argmax(-1) == other.seen.argmax(-1)
