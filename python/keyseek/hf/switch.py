"""One line that has a model retrieve for a while: attention and cache, set and set back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import transformers
from transformers import GenerationMixin

from ..errors import InvalidArgument
from .cache import RetrievalCache
from .choice import AttentionChoice

# By which `generate` takes a cache; transformers 5.24 has changed it. Both are the caller's own.
_NAMES = ("past_key_values", "cache")
_VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
_NAME = _NAMES[_VERSION >= (5, 24)]
# A `generate` of ours carries its cache under this name.
_CACHE = "_keyseek_cache"


@contextmanager
def retrieval(
    model: Any, max_error: float | None = None, **options: Any
) -> Iterator[RetrievalCache]:
    """Within the block `model.generate` retrieves: `with retrieval(model, max_error=0.05): ...`.

    max_error, options: those of RetrievalCache. Gives the cache, to ask for its `report`. Every
    call of `generate` begins with it empty; to go on with a text, hand a RetrievalCache of your own
    to `generate`, outside of the block. Attention and `generate` are set back at the end, also
    where an exception ends it.

    InvalidArgument where the model cannot generate, has no cache of keys and values alone, or is
    within such a block already; from `generate`, where it is given a cache or the kind of one.
    """
    _require_generates(model)
    callers_own = vars(model).get("generate")
    if hasattr(callers_own, _CACHE):
        raise InvalidArgument(
            f"model is a {type(model).__name__} that retrieves already, in a block around this one "
            "or in another thread: one block serves one call of generate at a time"
        )
    choice = AttentionChoice(model)
    try:
        choice.take_ours()
        cache = RetrievalCache(model, max_error, **options)
        vars(model)["generate"] = _generate_with(cache, model.generate, model)
        yield cache
    finally:
        choice.set_back()
        vars(model).pop("generate", None)
        if callers_own is not None:
            vars(model)["generate"] = callers_own


def _require_generates(model: Any) -> None:
    AttentionChoice(model)  # refuses what is no PreTrainedModel
    config = model.config
    if not isinstance(model, GenerationMixin):
        raise InvalidArgument(
            f"model is a {type(model).__name__}, which has no generate: use a class with a head "
            "that does, as AutoModelForCausalLM gives"
        )
    if config.is_encoder_decoder:
        raise InvalidArgument(
            f"model is a {type(model).__name__}, an encoder and a decoder, whose cache has keys of "
            "both: retrieval is for decoders alone"
        )


def _generate_with(
    cache: RetrievalCache, original: Callable[..., Any], model: Any
) -> Callable[..., Any]:
    @functools.wraps(original)
    def generate(*args: Any, **kwargs: Any) -> Any:
        _require_no_cache(args, kwargs, model)
        cache.reset()
        return original(*args, **kwargs, **{_NAME: cache})

    setattr(generate, _CACHE, cache)
    return generate


def _require_no_cache(args: tuple[Any, ...], kwargs: dict[str, Any], model: Any) -> None:
    for name in _NAMES:
        if kwargs.get(name) is not None:
            raise InvalidArgument(
                f"{name} is a {type(kwargs[name]).__name__}, but within the block generate has the "
                "block's cache: leave it out, or call generate outside of the block"
            )
        kwargs.pop(name, None)
    given = kwargs.get("generation_config", args[1] if len(args) > 1 else None)
    for config in (model.generation_config, given):
        for name in ("use_cache", "cache_implementation"):
            _require_ours(name, kwargs.get(name, getattr(config, name, None)))


def _require_ours(name: str, value: Any) -> None:
    if name == "use_cache" and value is False:
        raise InvalidArgument("use_cache is False, but retrieval is by a cache: leave it out")
    # transformers drops "hybrid" by itself, which old models have in their configuration.
    if name == "cache_implementation" and value not in (None, "hybrid"):
        raise InvalidArgument(
            f"cache_implementation is {value!r}, but within the block generate has the block's "
            "cache: leave it out"
        )
