"""One model beside itself: its own eager attention and cache, and ours, on the same tokens."""

from __future__ import annotations

import copy
import inspect
import sys
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from keyseek.hf import RetrievalCache

from .shrink import VOCABULARY, small_config

OPTIONS = {
    "sink": 4,
    "window": 16,
    "least_indexed": 64,
    "horizon": 32,
    "observed": 64,
    "held_out": 16,
    "tail_vectors": 8,
    "max_k": 64,
    "threads": 1,
    "dtype": None,
}
EXACT = 1e-6  # as max_error: no head can promise that but by reading everything
CACHE = "cache" if int(transformers.__version__.split(".")[0]) >= 5 else "past_key_values"
PROMPT = 128
STEPS, TURN = [1] * 24, [20, *[1] * 12]
PADDING = 25  # of the second request of a batch


class NotBuildable(Exception):
    """transformers itself cannot make this model small, or run it with a cache."""


@dataclass(frozen=True)
class Text:
    """What a model is fed: the prompt and then pieces; of a padded batch, a mask [B, tokens]."""

    pieces: list[int]
    ids: Tensor
    mask: Tensor | None = None


def text(steps: list[int], padded: bool = False) -> Text:
    pieces = [PROMPT, *steps]
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, VOCABULARY, (1 + padded, sum(pieces)), generator=generator)
    if not padded:
        return Text(pieces, ids)
    mask = torch.ones_like(ids)
    mask[1, :PADDING] = 0
    return Text(pieces, ids, mask)


def make(name: str, **changes: Any) -> nn.Module:
    """The model of that class with eager attention, with changes of its configuration; its weights
    depend on these alone."""
    kind = getattr(transformers, name)
    config = small_config(name, changes)
    torch.manual_seed(0)
    model = kind._from_config(config, attn_implementation="eager").eval()
    torch.manual_seed(1)
    for path, weight in model.named_parameters():
        if "sink" in path:
            weight.normal_()
    if hasattr(model, "set_default_language"):
        model.set_default_language("en_XX")
    return model


def switched(eager: nn.Module) -> nn.Module:
    """The same weights under the attention "keyseek", loaded as a user would."""
    model = type(eager)._from_config(copy.deepcopy(eager.config), attn_implementation="keyseek")
    model.load_state_dict(eager.state_dict())
    if hasattr(model, "set_default_language"):
        model.set_default_language("en_XX")
    return model.eval()


def own_cache(model: nn.Module, requests: int) -> Any:
    """The cache that the model's own module defines, where it does; None: it makes its own."""
    module = sys.modules[type(model).__module__]
    kinds = [
        kind
        for name, kind in vars(module).items()
        if name.endswith("Cache") and inspect.isclass(kind) and kind.__module__ == module.__name__
    ]
    if not kinds or CACHE == "cache":
        return None
    takes = inspect.signature(kinds[0]).parameters
    given = {"config": model.config, "batch_size": requests, "max_batch_size": requests}
    given["dtype"] = torch.float32
    return kinds[0](**{name: value for name, value in given.items() if name in takes})


def feed(model: nn.Module, text: Text, cache: Any) -> Tensor:
    """Logits [B, positions, vocabulary] of the prompt's last position and all after it.

    cache: None for the model's own, which its first output carries.
    """
    takes = inspect.signature(model.forward).parameters
    requests, begin, seen = text.ids.shape[0], 0, []
    for count in text.pieces:
        end = begin + count
        given: dict[str, Any] = {CACHE: cache} if cache is not None else {}
        if text.mask is not None:
            given["attention_mask"] = text.mask[:, :end]
            if "position_ids" in takes:
                positions = (text.mask[:, :end].cumsum(-1) - 1).clamp(min=0)
                given["position_ids"] = positions[:, begin:end]
        if "cache_position" in takes:
            given["cache_position"] = torch.arange(begin, end)
        out = model(input_ids=text.ids[:, begin:end], use_cache=True, **given)
        if cache is None:
            cache = out.get(CACHE)
            if cache is None:
                raise NotBuildable("it keeps no cache of keys and values")
        logits = out.logits.reshape(requests, -1, out.logits.shape[-1])
        seen.append(logits[:, -1:] if begin == 0 else logits)
        begin = end
    return torch.cat(seen, 1).float()


def ours(model: nn.Module) -> RetrievalCache:
    return RetrievalCache(model, EXACT, **OPTIONS)


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest relative error of any position's logits."""
    return ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max().item()
