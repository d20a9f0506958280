"""What tells a model, and what it has read, from others: kept with a saved cache.

Keys of one model mean nothing to another, and nothing would show it: a cache is loaded for the
model that it was saved with, or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._core import HeadCache
from ..errors import InvalidArgument
from .model_class import config_value
from .probe import text_config_of
from .rotary import LayerRotary, require_same_rotary

# These values of a configuration decide which keys and values a model makes. Rotary embeddings
# are compared as they were found; names of files, types of numbers and devices do not matter.
_SIZES = (
    "model_type",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "kv_lora_rank",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "layer_types",
    "sliding_window",
    "attention_chunk_size",
    "num_kv_shared_layers",
)
TokenIds = Tensor | Sequence[int]  # [n] or [B, n]
# So many elements of each weight are looked at, spread evenly.
_SAMPLED = 64


@dataclass(frozen=True)
class ModelFingerprint:
    """sizes: name and value of what a configuration says. rotary: of every layer. weights: a hash
    of elements of every weight, None where only a configuration was given."""

    sizes: dict[str, Any]
    rotary: tuple[LayerRotary, ...]
    weights: str | None = None

    def state(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {
            "sizes": self.sizes,
            "rotary": [layer.state() for layer in self.rotary],
            "weights": self.weights,
        }

    @staticmethod
    def of_state(state: dict[str, Any]) -> ModelFingerprint:
        rotary = tuple(LayerRotary.of_state(layer) for layer in state["rotary"])
        return ModelFingerprint(dict(state["sizes"]), rotary, state["weights"])


def fingerprint_of(source: Any, rotary: Sequence[LayerRotary]) -> ModelFingerprint:
    """source: a model, or a configuration. rotary: what `rotary_of` found."""
    config = text_config_of(source)
    sizes = {name: _plain(config_value(config, name)) for name in _SIZES}
    weights = weights_hash(source) if isinstance(source, nn.Module) else None
    return ModelFingerprint(sizes, tuple(rotary), weights)


def require_same_model(saved: ModelFingerprint, now: ModelFingerprint, what: str) -> None:
    """Throws InvalidArgument that names the first difference. what: for the message, a path.

    Weights are compared where both sides know them: a cache that was made or is loaded with a
    configuration alone cannot tell a model from its fine-tuned sister.
    """
    for name, value in saved.sizes.items():
        here = now.sizes.get(name)
        if value != here:
            raise InvalidArgument(
                f"{what} is of another model: {name} is {value} there and {here} here"
            )
    require_same_rotary(saved.rotary, now.rotary, what)
    if saved.weights and now.weights and saved.weights != now.weights:
        raise InvalidArgument(
            f"{what} is of a model of the same shape with other weights (another checkpoint, "
            "fine-tuned, or quantized differently): read the prompt again with this model"
        )


def weights_hash(model: nn.Module) -> str | None:
    """A hash of up to 64 elements of each weight, wherever it is.

    It is the same for a checkpoint in float32 and for one in bfloat16 that holds the same numbers.
    None where weights are not in memory (offloaded ones), which could not be compared.
    """
    model = getattr(model, "_orig_mod", model)  # torch.compile wraps it
    weights = sorted(model.named_parameters())
    if any(weight.is_meta for _, weight in weights):
        return None
    # Each device is read once; the hash goes by name, wherever a weight is.
    sampled: dict[str, Tensor] = {}
    for device in {weight.device for _, weight in weights}:
        own = [(name, _sample(weight)) for name, weight in weights if weight.device == device]
        parts = torch.cat([part for _, part in own]).cpu().split([len(part) for _, part in own])
        sampled.update(zip([name for name, _ in own], parts, strict=True))
    digest = hashlib.sha256()
    for name, weight in weights:
        digest.update(f"{name} {tuple(weight.shape)}\n".encode())
        digest.update(sampled[name].numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def require_same_tokens(saved: str | None, tokens: TokenIds, count: int, what: str) -> None:
    """Throws InvalidArgument unless `tokens` begin with the `count` of which `saved` is the hash.

    what: for the message, a path.
    """
    if saved is None:
        raise InvalidArgument(f"{what} was saved without tokens, nothing to compare tokens with")
    if tokens_hash(_ids(tokens)[..., :count], count) != saved:
        raise InvalidArgument(
            f"{what} is of another text: its {count} tokens are not the first ones of tokens"
        )


def tokens_hash(tokens: TokenIds, count: int) -> str:
    """A hash of `count` token ids [n] or [batch, n], on any device and of any integer type.

    Throws InvalidArgument where they are another number, or none of integers.
    """
    ids = _ids(tokens)
    if ids.shape[-1] != count:
        raise InvalidArgument(f"tokens are {ids.shape[-1]}, the cache has read {count}")
    plain = ids.detach().cpu().reshape(-1, count).to(torch.int64).numpy()
    return hashlib.sha256(f"{plain.shape}".encode() + plain.astype("<i8").tobytes()).hexdigest()


def _ids(tokens: TokenIds) -> Tensor:
    ids = tokens if isinstance(tokens, Tensor) else torch.tensor(list(tokens))
    if ids.is_floating_point() or ids.dim() == 0:
        raise InvalidArgument(f"tokens are {ids.dtype} of {ids.dim()} dimensions, must be integers")
    return ids


def heads_hash(heads: Sequence[HeadCache]) -> str:
    """A hash of the sizes of a layer's heads, and of keys and values of sink and recent tokens.

    A file of another prompt in place of one's own shows; what is indexed is not read.
    """
    digest = hashlib.sha256()
    for head in heads:
        digest.update(f"{len(head)} {head.indexed} {head.group} {head.dim}\n".encode())
        for rows in head.static_part()[:2]:
            digest.update(np.ascontiguousarray(rows).tobytes())
    return digest.hexdigest()


def _sample(weight: Tensor) -> Tensor:
    flat = weight.detach().reshape(-1)
    count = min(_SAMPLED, flat.numel())
    chosen = torch.linspace(0, max(flat.numel() - 1, 0), count, dtype=torch.float64).long()
    return flat[chosen.to(flat.device)].float()


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
