"""A cache that is kept: a common prompt is read and planned once.

A folder with a file `state.pt` (tensors, numbers and text: schema.py) and, of every layer that
retrieves, a file for each request and KV head (docs/index-format.md, "A head").
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._core import DecodeParams, HeadCache
from ..errors import Error, IoError
from .fingerprint import ModelFingerprint, heads_hash, require_same_model
from .layer import RetrievalLayer
from .schema import CACHE, FINGERPRINT, RETRIEVAL_LAYER, VERSION, checked, fields_of
from .stored import dtype_name

if TYPE_CHECKING:
    from .cache import RetrievalCache

STATE = "state.pt"


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
                "dtype": dtype_name(cache._dtype),
                "params": cache._params.to_text(),
                "fingerprint": cache._fingerprint.state(),
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
    return checked(str(file), state, CACHE)


def params_of(state: dict[str, Any], path: str | os.PathLike[str]) -> DecodeParams:
    """The options that the cache was made with."""
    try:
        return DecodeParams.from_text(state["params"])
    except Error as error:
        raise Error(f"{path}: {STATE}, params: {error}", "corrupt") from None


def restore(cache: RetrievalCache, state: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Fills the layers of a new cache."""
    file = f"{path}: {STATE}"
    saved_for = ModelFingerprint.of_state(
        checked(f"{file}, fingerprint", state["fingerprint"], FINGERPRINT)
    )
    require_same_model(saved_for, cache._fingerprint, str(path))
    if len(state["layers"]) != len(cache.layers):
        raise Error(
            f"{path} is of a model of {len(state['layers'])} layers, this one has "
            f"{len(cache.layers)}",
            "invalid_argument",
        )
    for index, (layer, saved) in enumerate(zip(cache.layers, state["layers"], strict=True)):
        if not isinstance(saved, dict) or saved.get("kind") != type(layer).__name__:
            raise Error(f"{path}: layer {index} is of another kind in this model", "invalid_argument")
        what = f"{file}, layer {index}"
        if isinstance(layer, RetrievalLayer):
            checked(what, saved, RETRIEVAL_LAYER)
            heads = [HeadCache.map(Path(path, head_name(index, i))) for i in range(saved["heads"])]
            if heads and heads_hash(heads) != saved["read"]:
                raise Error(
                    f"{path}: files of layer {index} are of another text than {STATE}", "corrupt"
                )
            layer.restore(saved, heads)
        else:
            _restore_plain(layer, checked(what, saved, {"kind": (str,), **fields_of(layer)}))


def head_name(layer: int, head: int) -> str:
    return f"layer-{layer:03}-head-{head:04}.ks"


def _state_of(layer: Any) -> dict[str, Any]:
    if isinstance(layer, RetrievalLayer):
        read = heads_hash(layer.heads) if layer.heads else ""
        return {"kind": type(layer).__name__, "read": read, **layer.state()}
    return {"kind": type(layer).__name__, **{name: getattr(layer, name) for name in fields_of(layer)}}


def _restore_plain(layer: Any, saved: dict[str, Any]) -> None:
    for name in fields_of(layer):
        setattr(layer, name, saved[name])
    if isinstance(getattr(layer, "keys", None), Tensor):
        layer.dtype, layer.device = layer.keys.dtype, layer.keys.device
        if hasattr(layer, "_sliding_window_tensor"):  # transformers 5: a number beside the keys
            layer._sliding_window_tensor = layer._sliding_window_tensor.to(layer.device)
