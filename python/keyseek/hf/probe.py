"""Asks a model for its queries at many positions, without a cache and without disturbing it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

_NAME = "keyseek-probe"
_seen: ContextVar[dict[int | None, list[Tensor]] | None] = ContextVar("seen", default=None)

# Frequencies are measured at the powers of two (rotary_fit), the others are for verification.
_POSITIONS = (
    0, 1, 2, 5, 8, 32, 77, 128, 512, 1234,
    2048, 8192, 20011, 32768, 131072, 300007, 524288,
)  # fmt: skip
_TOKENS = 2
# float32 products of the same rows in one batch may differ by this much of an element.
_LEAST_NOISE = 2e-6


class AskFailed(Exception):
    """Why the model could not be asked."""


@dataclass(frozen=True)
class Answers:
    """positions [p], increasing from 0; of_layer: queries [p, m, d] by layer, the same m tokens
    and heads at each position; noise: what rounding makes of an element, in relation to it;
    named: the frequencies that modules of the model hold as `inv_freq`."""

    positions: NDArray[np.int64]
    of_layer: dict[int, NDArray[np.float64]]
    noise: float
    named: list[NDArray[np.float64]]


def text_config_of(source: Any) -> Any:
    """The configuration of the decoder of a model, or of what another configuration describes."""
    config: Any = source.config if isinstance(source, nn.Module) else source
    return config.get_text_config(decoder=True)


def ask(model: nn.Module, together: bool = True) -> Answers:
    """Each row of a batch is a single token at a position of its own. A single token attends to
    itself only, so that positions change nothing but the rotation: whatever else the queries of a
    layer depend on is the same in all rows.

    together: all positions in one batch, else one after the other. Rows of one batch may be
    rounded differently, which deep layers (with experts above all) make more of.
    Throws AskFailed.
    """
    config = text_config_of(model)
    decoder = _decoder_of(model, config)
    accepted = inspect.signature(decoder.forward).parameters
    if "position_ids" not in accepted:
        raise AskFailed(f"{type(decoder).__name__} takes no position_ids")
    longest = getattr(config, "max_position_embeddings", None) or _POSITIONS[-1] + 1
    positions = np.array([p for p in _POSITIONS if p < longest])
    seen: dict[int | None, list[Tensor]] = {}
    try:
        with torch.no_grad(), _attention_replaced(decoder, seen), _evaluating(decoder):
            for at in [positions] if together else positions[:, None]:
                decoder(**_inputs(decoder, config, at, accepted))
    except Exception as error:  # whatever a model's code raises
        sentence = " ".join(str(error).split())[:200]
        raise AskFailed(
            f"{type(decoder).__name__} could not be asked: {type(error).__name__}: {sentence}"
        ) from error
    of_layer = {
        index: by_position
        for index, queries in seen.items()
        if index is not None and (by_position := _by_position(queries, len(positions))) is not None
    }
    if not of_layer:
        raise AskFailed(f"{type(decoder).__name__} does not call the attention interface")
    noise = max(torch.finfo(next(iter(seen.values()))[0].dtype).eps, _LEAST_NOISE)
    named = [
        buffer.double().cpu().numpy()
        for name, buffer in decoder.named_buffers()
        if "inv_freq" in name and buffer.dim() == 1
    ]
    return Answers(positions, of_layer, noise, named)


def _inputs(
    decoder: PreTrainedModel, config: Any, positions: NDArray[np.int64], accepted: Any
) -> dict[str, Any]:
    embeddings: Any = decoder.get_input_embeddings()
    device = embeddings.weight.device
    vocabulary = config.vocab_size
    tokens = [vocabulary // (t + 2) for t in range(_TOKENS)]
    ids = torch.tensor(tokens * len(positions), device=device)[:, None]
    at = torch.from_numpy(positions).repeat_interleave(_TOKENS).to(device)[:, None]
    inputs: dict[str, Any] = {"input_ids": ids, "position_ids": at}
    if "attention_mask" in accepted:
        inputs["attention_mask"] = torch.ones_like(ids)
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs


def _by_position(calls: list[Tensor], count: int) -> NDArray[np.float64] | None:
    """[p * tokens, heads, 1, d], of one call or one for each position -> [p, tokens * heads, d].
    Where a layer attends more than once with its query, the first is taken."""
    queries = torch.cat(calls[:: max(1, len(calls) * calls[0].shape[0] // (count * _TOKENS))])
    if queries.dim() != 4 or queries.shape[0] != count * _TOKENS or queries.shape[2] != 1:
        return None
    return queries.double().cpu().reshape(count, -1, queries.shape[-1]).numpy()


def _decoder_of(model: nn.Module, config: Any) -> PreTrainedModel:
    """The innermost model of this configuration that takes tokens: without vision, without head."""
    found = [
        module
        for module in model.modules()
        if isinstance(module, PreTrainedModel)
        and (module.config is config or type(module.config) is type(config))
        and "input_ids" in inspect.signature(module.forward).parameters
    ]
    if not found:
        raise AskFailed(f"{type(model).__name__} has no decoder that takes tokens")
    return found[-1]


def _record(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of a single token to itself, and a note of its query."""
    seen = _seen.get()
    if seen is None:
        raise RuntimeError(f"the attention '{_NAME}' is for questions to a model only")
    seen.setdefault(getattr(module, "layer_idx", None), []).append(query.detach())
    out = value.mean(dim=2, keepdim=True).repeat_interleave(query.shape[1] // value.shape[1], dim=1)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _record)


@contextmanager
def _attention_replaced(decoder: nn.Module, seen: dict[int | None, list[Tensor]]) -> Iterator[None]:
    configs: dict[int, Any] = {
        id(m.config): m.config for m in decoder.modules() if hasattr(m, "config")
    }
    before = [(config, config._attn_implementation) for config in configs.values()]
    token = _seen.set(seen)
    try:
        for config, _ in before:
            config._attn_implementation = _NAME
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name
        _seen.reset(token)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Turns dropout off; modules that were training go on with it afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
