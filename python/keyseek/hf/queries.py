"""The newest queries of a prompt, kept until its plan is made."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LEAST = 64  # positions


class PromptQueries:
    """Pieces [B, Hq, q, d] of a prompt's newest positions, oldest first."""

    def __init__(self, pieces: list[Tensor] | None = None) -> None:
        self.pieces = pieces or []

    def __bool__(self) -> bool:
        return bool(self.pieces)

    @property
    def suffice(self) -> bool:
        """Whether a plan can be made of them; of fewer it can only be to attend to everything."""
        return self._positions() >= _LEAST

    def _positions(self) -> int:
        return sum(piece.shape[2] for piece in self.pieces)

    def copy(self) -> PromptQueries:
        return PromptQueries(list(self.pieces))

    def add(self, query: Tensor, kept: int) -> None:
        """Those of new positions; of all, the pieces that hold the newest `kept` positions stay."""
        newest = query[:, :, -kept:].detach()
        self.pieces.append(
            newest.to(torch.float16, copy=True) if _fits_f16(newest) else newest.clone()
        )
        total = self._positions()
        while total - self.pieces[0].shape[2] >= kept:
            total -= self.pieces.pop(0).shape[2]

    def take_back(self, positions: int) -> None:
        """Drops those of the newest positions."""
        while positions > 0 and self.pieces:
            newest = self.pieces.pop()
            if newest.shape[2] > positions:
                self.pieces.append(newest[:, :, :-positions])
            positions -= newest.shape[2]

    def select(self, requests: Tensor) -> None:
        self.pieces = [piece[requests] for piece in self.pieces]

    def suffice_of(self, request: int, there: Tensor | None) -> bool:
        """`suffice` of one request, whose tokens that are there are [n] bool; None: all."""
        newest = self._positions()
        return self.suffice and (there is None or int(there[-newest:].sum()) >= _LEAST)

    def of(self, request: int, there: Tensor | None) -> PromptQueries:
        """Those of one request alone, of tokens that are there."""
        pieces, end = [], self._positions()
        for piece in self.pieces:
            own = piece[request : request + 1]
            if there is not None:
                first = len(there) - end
                shown = there[first : first + piece.shape[2]].to(piece.device)
                own = own[:, :, shown]
            pieces.append(own)
            end -= piece.shape[2]
        return PromptQueries(pieces)

    def joined(self) -> Tensor:
        """Of a single request [Hq, p, d], on the CPU."""
        return torch.cat([piece[0] for piece in self.pieces], dim=1).cpu()


def rows(states: Tensor) -> NDArray[np.float32]:
    """[..., d] as float32 rows [m, d]; NumPy's arrays are handed over in a tenth of the time."""
    return states.detach().reshape(-1, states.shape[-1]).float().cpu().contiguous().numpy()


def _fits_f16(states: Tensor) -> bool:
    return bool(states.abs().max() < torch.finfo(torch.float16).max)
