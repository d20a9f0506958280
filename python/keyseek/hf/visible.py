"""Which tokens of each request are there: padding, and whatever else a mask hides, is not."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidArgument

# A float mask hides below this: models write the smallest float of their type, or -infinity.
_HIDES = -1e4


def as_visible(mask: Tensor, tokens: int) -> Tensor:
    """A mask [B, H, q, >= n], bool or added to the logits, as bool [B, q, n]: what is seen.

    Throws InvalidArgument for a mask of several heads that differ, and for one with other values
    than 0 and about -infinity: a position bias.
    """
    mask = mask[..., :tokens]
    if mask.dtype == torch.bool:
        seen = mask
    else:
        seen = mask == 0
        if not bool((seen | (mask <= _HIDES)).all()):
            raise InvalidArgument("attention_mask is added to the logits as a position bias")
    if seen.shape[1] > 1 and not bool((seen == seen[:, :1]).all()):
        raise InvalidArgument("attention_mask differs from head to head")
    return seen[:, 0]


class Visibility:
    """Says which of the tokens that a cache has taken are there, request by request."""

    def __init__(self) -> None:
        self._seen: Tensor | None = None  # [B, n] on the CPU; None: all are there
        self._tokens = 0

    def copy(self) -> Visibility:
        other = Visibility()
        other._seen, other._tokens = self._seen, self._tokens
        return other

    def read_prompt(self, mask: Tensor | None, batch: int, tokens: int) -> None:
        """What the newest query of a prompt sees is what is there, with all that came before."""
        self._tokens = tokens
        self._seen = None
        if mask is not None:
            newest = as_visible(mask[:, :, -1:], tokens)[:, 0].cpu()
            if not bool(newest.all()):
                self._seen = newest.expand(batch, -1).clone()

    def extend(self, mask: Tensor | None, batch: int, count: int) -> Tensor | None:
        """Takes `count` new tokens. Returns which of them are there [B, count]; None: all.

        Throws InvalidArgument, and takes nothing, where the mask is not causal over what is
        there: a token hidden or seen that was not before, or new tokens that see each other
        otherwise than in their order (the tree of a speculative decoder).
        """
        tokens = self._tokens + count
        if mask is None:
            if self._seen is not None:
                raise InvalidArgument(
                    "attention_mask is missing, but hid tokens of these requests before: hand it "
                    "over at every step"
                )
            self._tokens = tokens
            return None
        seen = as_visible(mask, tokens).cpu().expand(batch, -1, -1)
        newest = seen[:, -1]
        self._require_same_past(newest)
        fresh = newest[:, -count:]
        causal = torch.ones(count, tokens, dtype=torch.bool).tril(tokens - count)
        # What a hidden token's own query sees does not matter, if it does not even see itself.
        own = seen[:, :, -count:].diagonal(dim1=1, dim2=2)
        wrong = (seen != (newest[:, None] & causal)).any(-1) & (fresh | own)
        if count > 1 and bool(wrong.any()):
            request, row = (int(i) for i in wrong.nonzero()[0])
            raise InvalidArgument(
                f"attention_mask of request {request} is not causal at new token {row}: a cache "
                "that retrieves takes tokens one after the other, not the tree of a speculative "
                "decoder"
            )
        self._tokens = tokens
        if bool(newest.all()):
            return None
        self._seen = newest.clone()
        return None if bool(fresh.all()) else fresh

    def _require_same_past(self, newest: Tensor) -> None:
        past = newest[:, : self._tokens]
        known = torch.ones_like(past) if self._seen is None else self._seen
        if torch.equal(past, known):
            return
        request, token = (int(i) for i in (past != known).nonzero()[0])
        now, then = ("hides", "was seen") if known[request, token] else ("shows", "was hidden")
        raise InvalidArgument(
            f"attention_mask of request {request} {now} token {token}, which {then} when it was "
            "read: a cache that retrieves keeps what it was given; read the text anew"
        )

    @property
    def tokens(self) -> int:
        """How many have been attended, there or not."""
        return self._tokens

    def lengths(self, batch: int) -> list[int]:
        """How many tokens of each request are there."""
        if self._seen is None:
            return [self._tokens] * batch
        return [int(count) for count in self._seen.sum(-1)]

    def of(self, request: int) -> Tensor | None:
        """[n] bool of one request; None: all."""
        return None if self._seen is None else self._seen[request]

    def select(self, requests: Tensor) -> None:
        if self._seen is not None:
            self._seen = self._seen[requests.cpu()]

    def crop(self, tokens: int) -> None:
        self._tokens = min(tokens, self._tokens)
        if self._seen is not None:
            self._seen = self._seen[:, : self._tokens]

    def state(self) -> Tensor | int:
        """The state that `restored` takes."""
        return self._tokens if self._seen is None else self._seen

    @staticmethod
    def restored(state: Tensor | int) -> Visibility:
        visible = Visibility()
        if isinstance(state, Tensor):
            visible._seen, visible._tokens = state.cpu(), state.shape[-1]
        else:
            visible._tokens = state
        return visible
