"""The folder in which a RetrievalCache is kept: a common prompt is read and planned once.

It has a file `state.pt` (tensors, numbers and text: schema.py) and, of every layer that retrieves,
a
file for each request and KV head (docs/index-format.md, "A head"). This module knows the layers;
the cache that they belong to calls it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._core import DecodeParams, HeadCache
from ..errors import Error, IoError
from .fingerprint import ModelFingerprint, heads_hash, require_same_model
from .layer import RetrievalLayer
from .schema import CACHE, FINGERPRINT, RETRIEVAL_LAYER, VERSION, checked, fields_of

STATE = "state.pt"


def save_layers(layers: Sequence[Any], about: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a folder beside `path` and renames it when it is whole.

    about: the other fields of the state: dtype, options, fingerprint and tokens, as plain values.
    """
    target = Path(path)
    if target.exists():
        raise IoError(f"{target} exists already: remove it first", "io")
    try:
        with tempfile.TemporaryDirectory(prefix=".keyseek-", dir=target.parent) as working:
            whole = Path(working, "cache")
            whole.mkdir()
            for index, layer in enumerate(layers):
                if isinstance(layer, RetrievalLayer):
                    for i, head in enumerate(layer.heads):
                        head.save(whole / head_name(index, i))
            states = [_state_of(layer) for layer in layers]
            torch.save({"version": VERSION, **about, "layers": states}, whole / STATE)
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
        raise Error(
            f"{file} is not the state of a RetrievalCache that this version knows", "corrupt"
        )
    return checked(str(file), state, CACHE)


def params_of(state: dict[str, Any], path: str | os.PathLike[str]) -> DecodeParams:
    """The options that the cache was made with."""
    try:
        return DecodeParams.from_text(state["params"])
    except Error as error:
        raise Error(f"{path}: {STATE}, params: {error}", "corrupt") from None


def restore_layers(
    layers: Sequence[Any],
    model: ModelFingerprint,
    state: dict[str, Any],
    path: str | os.PathLike[str],
) -> None:
    """Fills the layers of a new cache for `model` with what `read_state` found at `path`."""
    file = f"{path}: {STATE}"
    saved_for = ModelFingerprint.of_state(
        checked(f"{file}, fingerprint", state["fingerprint"], FINGERPRINT)
    )
    require_same_model(saved_for, model, str(path))
    if len(state["layers"]) != len(layers):
        raise Error(
            f"{path} is of a model of {len(state['layers'])} layers, this one has {len(layers)}",
            "invalid_argument",
        )
    for index, (layer, saved) in enumerate(zip(layers, state["layers"], strict=True)):
        if not isinstance(saved, dict) or saved.get("kind") != type(layer).__name__:
            raise Error(
                f"{path}: layer {index} is of another kind in this model", "invalid_argument"
            )
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
    plain = {name: getattr(layer, name) for name in fields_of(layer)}
    return {"kind": type(layer).__name__, **plain}


def _restore_plain(layer: Any, saved: dict[str, Any]) -> None:
    for name in fields_of(layer):
        setattr(layer, name, saved[name])
    if isinstance(getattr(layer, "keys", None), Tensor):
        layer.dtype, layer.device = layer.keys.dtype, layer.keys.device
        if hasattr(layer, "_sliding_window_tensor"):  # transformers 5: a number beside the keys
            layer._sliding_window_tensor = layer._sliding_window_tensor.to(layer.device)
