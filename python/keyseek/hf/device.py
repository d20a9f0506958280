"""Layers whose tensors are on a CUDA device: sink and window are attended there, the rest here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from .._core import DecodePool, DecodeSession, HeadCache
from ..errors import Error, InvalidArgument
from .stored import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Session(Protocol):
    """What a layer needs of a DecodeSession; arrays are what torch.from_dlpack takes."""

    @property
    def queries(self) -> Any: ...  # [heads * group, d]
    @property
    def key(self) -> Any: ...  # [heads, d]
    @property
    def value(self) -> Any: ...  # [heads, d]
    @property
    def output(self) -> Any: ...  # [heads * group, d]

    def load(self, heads: Sequence[HeadCache]) -> None: ...
    def step(self, heads: Sequence[HeadCache], pool: DecodePool) -> None: ...


def retrieves_beside(device: torch.device) -> bool:
    """Whether a layer with tensors on `device` needs a session; False on the CPU."""
    if device.type not in ("cpu", "cuda"):
        raise InvalidArgument(
            f"keys are on {device}: retrieval works for models on the CPU or a CUDA device"
        )
    return device.type == "cuda"


def require_session(device: torch.device, keys: Tensor, values: Tensor, dtype: torch.dtype) -> None:
    """Refuses early what no session can be made for: a prompt takes long to read and to plan."""
    try:
        if keys.shape[-1] != values.shape[-1]:
            raise InvalidArgument(
                f"keys have dimension {keys.shape[-1]} and values {values.shape[-1]}, must have one"
            )
        DecodeSession.check(keys.shape[-1], _NAMES.get(dtype, str(dtype)), device.index or 0)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"keys are on {device}, where {error}: use a DynamicCache, or the model on the CPU"
        ) from None
    except Error as error:
        raise Error(
            f"keys are on {device}, but {error}: build keyseek with CUDA (pip install . "
            "--config-settings=cmake.define.KEYSEEK_CUDA=ON), or move the model to the CPU",
            error.code,
        ) from None


def open_session(heads: Sequence[HeadCache], device: torch.device, stream: int) -> Session:
    """A session that holds the static part of `heads`."""
    return DecodeSession(heads, device.index or 0, stream)


def current_stream(device: torch.device) -> int:
    """The cudaStream_t that PyTorch's work on the device goes to; 0 where there are none."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


class LayerSession:
    """A layer's session on the current stream, as tensors on its device."""

    def __init__(self, heads: Sequence[HeadCache], device: torch.device) -> None:
        self.stream = current_stream(device)
        # Tensors made in inference mode could not be written to outside of it.
        with torch.inference_mode(False):
            self._session = open_session(heads, device, self.stream)
            self._inputs = [
                from_dlpack(array)
                for array in (self._session.queries, self._session.key, self._session.value)
            ]
            self._output = from_dlpack(self._session.output)

    def load(self, heads: Sequence[HeadCache]) -> None:
        self._session.load(heads)

    def step(
        self,
        heads: Sequence[HeadCache],
        pool: DecodePool,
        query: Tensor,
        key: Tensor,
        value: Tensor,
    ) -> Tensor:
        """query [B, Hq, d], key and value [B, Hkv, d] -> [B * Hq, d], until the next step."""
        for place, states in zip(self._inputs, (query, key, value), strict=True):
            place.copy_(states.detach().reshape(place.shape))
        self._session.step(heads, pool)
        return self._output
