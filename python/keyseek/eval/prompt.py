"""A prompt read once with full attention, from which every policy decodes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..errors import InvalidArgument
from ..hf import ATTENTION_NAME
from ..hf.arguments import AttentionCall
from ..hf.attention import LAYER
from ..hf.rotary import rotary_of
from .block import Block

PIECE = 1024  # tokens of a prompt that are read at once


@dataclass(frozen=True)
class LayerPrompt:
    """What one layer of full attention made of the prompt, after rotation, float32.

    queries [Hkv, G, n, d], keys [Hkv, n, d], values [Hkv, n, dv]; the scale of the softmax;
    the rotary embedding in the words of HeadCache.prefill.
    """

    layer: int
    queries: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    rotary: dict[str, Any]
    _made: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return self.keys.shape[1]

    def once(self, name: str, make: Callable[[LayerPrompt], Any]) -> Any:
        """make(self), kept under a name: what policies of several budgets share."""
        if name not in self._made:
            self._made[name] = make(self)
        return self._made[name]


class Attends(Protocol):
    """What decodes one layer."""

    def attend(self, block: Block) -> Tensor:
        """The output [Hkv, G, q, dv] of a block of queries."""


class Prompt:
    """Keys, values and queries of a prompt's tokens, layer by layer; see `read_prompt`.

    `fork` makes a cache that continues after the prompt; forks share what was read.
    """

    def __init__(self, config: Any, cache: DynamicCache) -> None:
        self._config = config
        self._cache = cache
        self.layers = {
            i: layer.prompt(i)
            for i, layer in enumerate(cache.layers)
            if isinstance(layer, _ReadLayer)
        }
        self.tokens = next(iter(self.layers.values())).tokens

    def fork(self, make: Callable[[LayerPrompt], Attends]) -> DynamicCache:
        """A cache whose layers of full attention are decoded by `make(layer)`."""
        cache = DynamicCache(config=self._config)
        for i, layer in enumerate(self._cache.layers):
            if i in self.layers:
                cache.layers[i] = _ForkedLayer(self.layers[i], make(self.layers[i]))
            else:
                cache.layers[i] = copy.deepcopy(layer)
        return cache


def read_prompt(
    network: Any,
    ids: list[int],
    progress: Callable[[int, int], None] | None = None,
) -> Prompt:
    """Reads tokens with full attention. The network's attention becomes "keyseek".

    Layers that attend to a sliding window are left as they are.
    """
    if len(ids) < 2:
        raise InvalidArgument(f"ids has {len(ids)} tokens, a prompt needs at least 2")
    network.set_attn_implementation(ATTENTION_NAME)
    config = network.config.get_text_config(decoder=True)
    cache = DynamicCache(config=config)
    rotary = rotary_of(network)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * len(cache.layers)
    for i, kind in enumerate(kinds[: len(cache.layers)]):
        if kind == "full_attention":
            cache.layers[i] = _ReadLayer(rotary[i].options())
    with torch.inference_mode():
        for begin in range(0, len(ids), PIECE):
            piece = torch.tensor([ids[begin : begin + PIECE]])
            network.model(piece, past_key_values=cache, use_cache=True)
            if progress is not None:
                progress(min(begin + PIECE, len(ids)), len(ids))
    return Prompt(config, cache)


class _ReadLayer(DynamicLayer):
    """A DynamicLayer that also keeps all queries."""

    retrieving = False  # the attention function asks: full attention, with the queries observed

    def __init__(self, rotary: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rotary = rotary
        self._queries: list[Tensor] = []
        self._scale = 0.0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states)
        keys = keys.view_as(keys)  # a tensor object of its own, to carry the attribute
        setattr(keys, LAYER, self)
        return keys, values

    def observe(self, query: Tensor, mask: Tensor | None, call: AttentionCall) -> None:
        if not call.is_plain or call.position_bias is not None:
            raise InvalidArgument(
                "the model's logits are soft-capped or have sinks or a bias, which the policies do "
                "not know: evaluate another model"
            )
        self._scale = call.scale
        self._queries.append(query[0])

    def prompt(self, layer: int) -> LayerPrompt:
        assert self.keys is not None and self.values is not None
        keys, values = self.keys[0].float(), self.values[0].float()
        queries = torch.cat(self._queries, dim=1).float()
        grouped = queries.view(keys.shape[0], -1, *queries.shape[1:])
        return LayerPrompt(layer, grouped, keys, values, self._scale, self._rotary)


class _ForkedLayer(DynamicLayer):
    """Continues after a prompt; what is attended is up to a policy."""

    retrieving = True

    def __init__(self, prompt: LayerPrompt, policy: Attends) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._prompt = prompt
        self._policy = policy
        self._keys, self._values = prompt.keys, prompt.values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self._keys = torch.cat([self._keys, key_states[0].float()], dim=1)
        self._values = torch.cat([self._values, value_states[0].float()], dim=1)
        keys = key_states.view_as(key_states)
        setattr(keys, LAYER, self)
        return keys, value_states

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, call: AttentionCall
    ) -> Tensor:
        """query [1, Hq, q, d] of the newest tokens -> [1, q, Hq, dv]."""
        queries = query[0].float().view(self._keys.shape[0], -1, *query.shape[2:])
        block = Block(queries, self._keys, self._values, self._prompt.tokens, self._prompt.scale)
        out = self._policy.attend(block)
        return out.flatten(0, 1).transpose(0, 1)[None].to(query.dtype)

    def get_seq_length(self) -> int:
        return self._keys.shape[1]

    def get_mask_sizes(self, query: Tensor | int, *args: Any) -> tuple[int, int]:
        # transformers 4 passes the new positions, transformers 5 their number.
        count = query if isinstance(query, int) else query.shape[0]
        return self._keys.shape[1] + count, 0
