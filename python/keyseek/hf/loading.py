"""Models that are loaded with the attention "keyseek" although they take none."""

from __future__ import annotations

import functools
from typing import Any

import transformers
from transformers import GenerationMixin, PreTrainedModel

from ..errors import InvalidArgument
from .attention import ATTENTION_NAME
from .model_class import exchanges_attention


def own_attention(kind: type[PreTrainedModel]) -> str:
    """Why such a class cannot retrieve."""
    return (
        f"{kind.__name__} of transformers {transformers.__version__} computes its attention itself "
        "instead of by transformers' attention interface, so that nothing can retrieve for it: use "
        "attn_implementation='eager' and a DynamicCache, or a newer transformers if that has "
        "changed it"
    )


def refuse_at_load() -> None:
    """transformers takes a registered name at its word for any model. Some then look it up in a
    table of their own, and a user sees a KeyError; others go on with masks for another attention.
    """
    original = PreTrainedModel.get_correct_attn_implementation

    @functools.wraps(original)
    def checked(self: PreTrainedModel, requested: str | None, *args: Any, **kwargs: Any) -> Any:
        # Only models that generate are meant: a vision tower inside one may attend as it likes.
        generates = isinstance(self, GenerationMixin)
        if requested == ATTENTION_NAME and generates and not exchanges_attention(type(self)):
            raise InvalidArgument(own_attention(type(self)))
        return original(self, requested, *args, **kwargs)

    kind: Any = PreTrainedModel
    kind.get_correct_attn_implementation = checked
