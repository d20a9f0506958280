"""The folder in which a RetrievalCache is kept: a common prompt is read and planned once.

It has a file `state.pt` (what is plain tensors and numbers) and, of every layer that retrieves, a
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

from .._core import HeadCache
from ..errors import Error, IoError
from .fingerprint import ModelFingerprint, heads_hash, require_same_model
from .layer import RetrievalLayer

STATE, VERSION = "state.pt", 3
_FIELDS = {"version", "dtype", "options", "fingerprint", "tokens", "layers"}


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
    if set(state) != _FIELDS:
        odd = ", ".join(sorted(set(state) ^ _FIELDS))
        raise Error(f"{file} is damaged: missing or unknown fields: {odd}", "corrupt")
    return state


def restore_layers(
    layers: Sequence[Any],
    model: ModelFingerprint,
    state: dict[str, Any],
    path: str | os.PathLike[str],
) -> None:
    """Fills the layers of a new cache for `model` with what `read_state` found at `path`."""
    require_same_model(ModelFingerprint.of_state(state["fingerprint"]), model, str(path))
    if len(state["layers"]) != len(layers):
        raise Error(
            f"{path} is of a model of {len(state['layers'])} layers, this one has {len(layers)}",
            "invalid_argument",
        )
    for index, (layer, saved) in enumerate(zip(layers, state["layers"], strict=True)):
        if saved.pop("kind") != type(layer).__name__:
            raise Error(
                f"{path}: layer {index} is of another kind in this model", "invalid_argument"
            )
        if isinstance(layer, RetrievalLayer):
            heads = [HeadCache.map(Path(path, head_name(index, i))) for i in range(saved["heads"])]
            if heads and heads_hash(heads) != saved.pop("read"):
                raise Error(
                    f"{path}: files of layer {index} are of another text than {STATE}", "corrupt"
                )
            layer.restore(saved, heads)
        else:
            _restore_plain(layer, saved)


def head_name(layer: int, head: int) -> str:
    return f"layer-{layer:03}-head-{head:04}.ks"


def _state_of(layer: Any) -> dict[str, Any]:
    if isinstance(layer, RetrievalLayer):
        read = heads_hash(layer.heads) if layer.heads else ""
        return {"kind": type(layer).__name__, "read": read, **layer.state()}
    # Of layers of transformers' own, the tensors, numbers, and lists of them are kept.
    plain = {name: value for name, value in vars(layer).items() if _is_plain(value)}
    return {"kind": type(layer).__name__, **plain}


def _restore_plain(layer: Any, saved: dict[str, Any]) -> None:
    for name, value in saved.items():
        setattr(layer, name, value)
    if isinstance(getattr(layer, "keys", None), Tensor):
        layer.dtype, layer.device = layer.keys.dtype, layer.keys.device


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, (bool, int, float, str, Tensor)) for each in value)
    if isinstance(value, dict):
        return all(_is_plain(each) for each in value.values())
    return value is None or isinstance(value, (bool, int, float, str, Tensor))
