"""Which attention a model goes by: chosen for it, and set back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel

from ..errors import InvalidArgument
from .attention import ATTENTION_NAME


class AttentionChoice:
    """What the configurations of a model, and of models within it, name as their attention."""

    def __init__(self, model: Any) -> None:
        if not isinstance(model, PreTrainedModel):
            raise InvalidArgument(
                f"model is a {type(model).__name__}, must be a PreTrainedModel of transformers: of "
                "a wrapper (torch.compile, an adapter) hand over the model inside"
            )
        self._model = model
        self._before = [(each, each._attn_implementation_internal) for each in _configs_in(model)]

    def take_ours(self) -> None:
        """Has the model attend by "keyseek"."""
        self._model.set_attn_implementation(ATTENTION_NAME)

    def set_back(self) -> None:
        for config, name in self._before:
            config._attn_implementation_internal = name


def _configs_in(model: PreTrainedModel) -> list[Any]:
    """Each once: several models may share one."""
    inside = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)]
    return list({id(each): each for config in inside for each in _with_parts(config)}.values())


def _with_parts(config: Any) -> Iterator[Any]:
    yield config
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if part is not None:
            yield from _with_parts(part)
