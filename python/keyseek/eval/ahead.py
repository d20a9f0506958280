"""Queries a layer ahead: what a layer would ask if the layer before it did nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..hf.arguments import AttentionCall
from ..hf.attention import LAYER

# What transformers calls the cache in a layer's attention, from version to version.
_CACHES = ("past_key_values", "past_key_value", "cache")


class Ahead:
    """While it is entered, `queries` holds for every layer but the first the queries [Hq, q, d],
    rotated, that it makes of the input of the attention of the layer before it.

    The layer's own code makes them, with the positions of its own call.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._handles: list[Any] = []
        self._input: Tensor | None = None
        self.queries: dict[int, Tensor] = {}

    def __enter__(self) -> Ahead:
        for number, layer in enumerate(self._network.model.layers):

            def look(
                module: nn.Module,
                args: tuple[Any, ...],
                given: dict[str, Any],
                number: int = number,
            ) -> None:
                self._look(number, module, args, given)

            handle = layer.self_attn.register_forward_pre_hook(look, with_kwargs=True)
            self._handles.append(handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _look(
        self, number: int, module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]
    ) -> None:
        before = self._input if number else None
        self._input = args[0] if args else given["hidden_states"]
        if before is None:
            return
        asked = _Asked()
        replaced = {name: asked for name in _CACHES if name in given}
        kept = {name: value for name, value in given.items() if name != "hidden_states"}
        # forward, not a call: nobody else is told of it.
        module.forward(before, *args[1:], **{**kept, **replaced})
        self.queries[number] = asked.query


class _Asked:
    """A cache that keeps nothing, for attention that is asked only what its queries are."""

    retrieving = True
    query: Tensor

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        keys = keys.view_as(keys)
        setattr(keys, LAYER, self)
        return keys, values

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, call: AttentionCall
    ) -> Tensor:
        self.query = query[0].float()
        count, dim = query.shape[2], value.shape[-1]
        return torch.zeros(1, count, query.shape[1], dim, dtype=query.dtype)
