"""A cache that is kept: a common prompt is read and planned once.

A folder with a file `state.pt` (what is plain tensors and numbers) and, of every layer that
retrieves, a file for each request and KV head (docs/index-format.md, "A head").
"""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._core import HeadCache
from ..errors import Error, IoError
from .layer import RetrievalLayer

if TYPE_CHECKING:
    from .cache import RetrievalCache

STATE, VERSION = "state.pt", 1


def copy_layer(layer: Any) -> Any:
    """A layer that goes its own way from here; what is indexed stays shared, and tensors are,
    since caches never change them in place."""
    other = copy.copy(layer)
    if isinstance(layer, RetrievalLayer):
        other.heads = [head.copy() for head in layer.heads]
        other._session = None  # one for each: their windows differ from here on
        other._queries = list(layer._queries)
    return other


def save_cache(cache: RetrievalCache, path: str | os.PathLike[str]) -> None:
    """Writes a folder beside `path` and renames it when it is whole."""
    target = Path(path)
    if target.exists():
        raise IoError(f"{target} exists already: remove it first", "io")
    try:
        with tempfile.TemporaryDirectory(prefix=".keyseek-", dir=target.parent) as working:
            whole = Path(working, "cache")
            whole.mkdir()
            for index, layer in cache._retrieval_layers():
                for i, head in enumerate(layer.heads):
                    head.save(whole / head_name(index, i))
            state = {
                "version": VERSION,
                "max_error": cache._max_error,
                "dtype": str(cache._dtype).removeprefix("torch.") if cache._dtype else None,
                "options": cache._given,
                "layers": [_state_of(layer) for layer in cache.layers],
            }
            torch.save(state, whole / STATE)
            whole.rename(target)
    except OSError as error:
        raise IoError(f"cannot write {target}: {error.strerror or error}", "io") from None


def read_state(path: str | os.PathLike[str], device: Any) -> dict[str, Any]:
    """The contents of state.pt, its tensors on `device`; only these and plain values are read."""
    file = Path(path, STATE)
    try:
        state = torch.load(file, weights_only=True, map_location=device)
    except OSError as error:
        raise IoError(f"cannot read {file}: {error.strerror or error}", "io") from None
    except Exception as error:  # torch raises what its archive and pickle code raise
        raise Error(f"{file} is damaged: {error}", "corrupt") from None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise Error(f"{file} is not the state of a RetrievalCache that this version knows", "corrupt")
    return state


def restore(cache: RetrievalCache, state: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Fills the layers of a new cache."""
    if len(state["layers"]) != len(cache.layers):
        raise Error(
            f"{path} is of a model of {len(state['layers'])} layers, this one has "
            f"{len(cache.layers)}",
            "invalid_argument",
        )
    for index, (layer, saved) in enumerate(zip(cache.layers, state["layers"], strict=True)):
        if ("heads" in saved) != isinstance(layer, RetrievalLayer):
            raise Error(f"{path}: layer {index} is of another kind in this model", "invalid_argument")
        heads = saved.pop("heads", 0)
        for name, value in saved.items():
            setattr(layer, name, value)
        if isinstance(layer.keys, Tensor):
            layer.dtype, layer.device = layer.keys.dtype, layer.keys.device
        if isinstance(layer, RetrievalLayer):
            layer.heads = [HeadCache.map(Path(path, head_name(index, i))) for i in range(heads)]


def head_name(layer: int, head: int) -> str:
    return f"layer-{layer:03}-head-{head:04}.ks"


def _state_of(layer: Any) -> dict[str, Any]:
    """What can be written of a layer of any kind: tensors, numbers, and lists of them."""
    state = {name: value for name, value in vars(layer).items() if _is_plain(value)}
    if isinstance(layer, RetrievalLayer):
        state["heads"] = len(layer.heads)
    return state


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, (int, Tensor)) for each in value)
    return value is None or isinstance(value, (bool, int, float, str, Tensor))
