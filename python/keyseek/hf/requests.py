"""The requests of a layer, each on its own: with its HeadCaches, or waiting for its plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._core import HeadCache, step_heads, truncate_heads
from ..errors import Error, InvalidArgument
from . import device as devices
from .arguments import AttentionCall
from .planning import LayerOptions, retrieve_topk
from .queries import PromptQueries, rows
from .report import named
from .schema import WAITING, checked
from .turn import read_tokens, take_turn
from .visible import Visibility
from .waiting import Waiting

Request = list[HeadCache] | Waiting  # that retrieves, by its heads, or not yet
States = tuple[Tensor, Tensor, Tensor]  # query [B, Hq, q, d], key [B, Hkv, q, d], value


class Requests:
    """What a layer has of its requests from the first plan on; those that are long enough retrieve.

    Where a function raises, no request has taken or lost a token.
    """

    def __init__(self, options: LayerOptions, rotary: dict[str, Any], each: list[Request]) -> None:
        self._options, self._rotary = options, rotary
        self._put(each)

    def _put(self, each: list[Request]) -> None:
        self.each = each
        # Of those that retrieve, request after request.
        self.heads = [head for _, own in self.planned() for head in own]
        self._session: devices.LayerSession | None = None

    def __len__(self) -> int:
        return len(self.each)

    def copy(self) -> Requests:
        """What is indexed stays shared."""
        each = [r if isinstance(r, Waiting) else [head.copy() for head in r] for r in self.each]
        return Requests(self._options, self._rotary, each)

    def planned(self) -> list[tuple[int, list[HeadCache]]]:
        """Requests that retrieve, and their heads."""
        return [(i, r) for i, r in enumerate(self.each) if not isinstance(r, Waiting)]

    def _waiting(self) -> list[tuple[int, Waiting]]:
        return [(i, r) for i, r in enumerate(self.each) if isinstance(r, Waiting)]

    def _ready(self) -> list[tuple[int, Waiting]]:
        return [(i, r) for i, r in self._waiting() if r.is_ready(self._options)]

    def heads_to_plan(self) -> int:
        return sum(len(request.keys) for _, request in self._ready())

    def why_some_wait(self) -> str:
        """Sentences without full stop; empty where all retrieve."""
        reasons: dict[str, list[int]] = {}
        for i, request in self._waiting():
            reasons.setdefault(request.why(self._options), []).append(i)
        return "; ".join(
            f"{named(those, 'request')} attend{'s' * (len(those) == 1)} in full: {why}"
            for why, those in reasons.items()
        )

    def plan(self, call: AttentionCall) -> None:
        """Those that are long enough by now."""
        made = {i: r.planned(self._options, self._rotary, call) for i, r in self._ready()}
        if made:
            self._exchange(made)

    def _exchange(self, others: dict[int, Any]) -> None:
        self._put([others.get(i, request) for i, request in enumerate(self.each)])

    def attend(self, states: States, fresh: Tensor | None, call: AttentionCall) -> Tensor:
        """Takes the new tokens and attends: what retrieves retrieves for one, and is exact for
        more. fresh: [B, q] bool, of tokens that are there, None for all; the others are not taken,
        and get zeros. Returns [B, q, Hq, dv]."""
        query, key, value = states
        if query.shape[2] > 1:
            out, self.each = take_turn(self.each, states, fresh, call, self._options)
            if self._session is not None:
                self._session.load(self.heads)
            return out
        token = query[:, :, 0], key[:, :, 0], value[:, :, 0]
        if fresh is None and len(self.heads) == len(self.each) * key.shape[1]:
            return self._step(self.heads, *token).view(*query.shape[:2], -1)[:, None]
        return self._step_some(token, fresh, call)[:, None]

    def _step(self, heads: list[HeadCache], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query [R, Hq, d], key and value [R, Hkv, d] of R requests that retrieve, whose heads
        these are -> [R * Hq, dv]. On a GPU with sink and window there: the heads have all tokens,
        so that a session can be made at any time: after planning, loading, a change of stream."""
        pool = self._options.pool
        if not devices.retrieves_beside(query.device):
            return torch.from_numpy(step_heads(heads, rows(query), rows(key), rows(value), pool))
        if len(heads) < len(self.heads):
            raise InvalidArgument(
                "attention_mask hides new tokens of some requests of a batch, which is not served "
                "on a GPU: give every request its own cache"
            )
        if self._session is None or self._session.stream != devices.current_stream(query.device):
            self._session = devices.LayerSession(heads, query.device)
        return self._session.step(heads, pool, query, key, value)

    def _step_some(self, token: States, fresh: Tensor | None, call: AttentionCall) -> Tensor:
        """One token [B, H, d] of the requests where it is there -> [B, Hq, dv]."""
        query, _, value = token
        out = value.new_zeros(*query.shape[:2], value.shape[-1], dtype=torch.float32)
        taken: dict[int, Waiting] = {}
        some: list[int] = []
        for i, request in enumerate(self.each):
            if fresh is not None and not bool(fresh[i, 0]):
                continue
            if isinstance(request, Waiting):
                own = [states[i][:, None] for states in token]
                found, taken[i] = request.attend(own, call, self._options)
                out[i] = found[0]
            else:
                some.append(i)
        if some:
            heads = [head for i, own in self.planned() if i in set(some) for head in own]
            found = self._step(heads, *(states[some] for states in token))
            out[some] = found.view(len(some), query.shape[1], -1).to(out)
        self.each = [taken.get(i, request) for i, request in enumerate(self.each)]
        return out

    def keep(self, tokens: Sequence[int], like: Tensor) -> list[int]:
        """Takes back all but the first tokens of each. Those that are too short then wait; like:
        tensors of what waits are like it. Returns those whose plan was made of what is gone, which
        should wait as well."""
        made: dict[int, Any] = {i: r.first(tokens[i]) for i, r in self._waiting()}
        cut = []
        for i, own in self.planned():
            if tokens[i] < self._options.least_tokens:
                made[i] = self._as_waiting(own, like).first(tokens[i])
            else:
                cut.append((i, own, [head.plan.retriever for head in own]))
        counts = [tokens[i] for i, own, _ in cut for _ in own]
        if cut:
            truncate_heads([h for _, own, _ in cut for h in own], counts, self._options.pool)
        session = self._session
        self._exchange(made)
        if session is not None and len(cut) == len(self):
            session.load(self.heads)
            self._session = session
        return [i for i, own, plans in cut if plans != [head.plan.retriever for head in own]]

    def let_wait(self, those: Sequence[int], like: Tensor) -> None:
        """Requests that retrieve attend to everything, until they have seen other queries."""
        if those:
            self._exchange(
                {i: self._as_waiting(own, like) for i, own in self.planned() if i in those}
            )

    def _as_waiting(self, heads: list[HeadCache], like: Tensor) -> Waiting:
        keys, values = (each.to(like) for each in read_tokens(heads, self._options.pool))
        return Waiting(keys, values, PromptQueries())

    def as_tensors(self, visible: Visibility, like: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Keys [B, Hkv, n, d] and values [B, Hkv, n, dv], where all wait; zeros for tokens that are
        not there. like: keys and values of none."""
        shape = (len(self), like[0].shape[1], visible.tokens)
        keys, values = (each.new_zeros(*shape, each.shape[-1]) for each in like)
        for i, request in self._waiting():
            there = visible.of(i)
            place = slice(None) if there is None else there.to(keys.device)
            keys[i][:, place], values[i][:, place] = request.keys, request.values
        return keys, values

    def select(self, chosen: Sequence[int]) -> None:
        """These requests, of which some may be chosen again: copied then."""
        session, count = self._session, len(self.heads)
        seen: set[int] = set()
        each: list[Request] = []
        for i in chosen:
            request = self.each[i]
            if i in seen and not isinstance(request, Waiting):
                request = [head.copy() for head in request]
            each.append(request)
            seen.add(i)
        self._put(each)
        # Of another size the next step makes one.
        if session is not None and len(self.heads) == count:
            session.load(self.heads)
            self._session = session

    def retrieve_topk(self, queries: Tensor, k: int | None) -> tuple[Tensor, Tensor]:
        """See RetrievalCache.retrieve_topk."""
        return retrieve_topk(self.planned(), len(self), queries, k)

    def state(self) -> dict[int, dict[str, Any]]:
        """Of those that wait, by their number: schema.WAITING."""
        return {
            i: {"keys": r.keys, "values": r.values, "queries": r.queries.pieces}
            for i, r in self._waiting()
        }

    @staticmethod
    def restored(
        options: LayerOptions,
        rotary: dict[str, Any],
        batch: int,
        state: dict[int, dict[str, Any]],
        heads: list[HeadCache],
    ) -> Requests:
        """Of what `state` gave, and all heads. Throws Error(corrupt) where they do not match."""
        planned = batch - len(state)
        if not set(state) <= set(range(batch)) or (len(heads) % planned if planned else heads):
            raise Error(
                f"{len(heads)} heads and {len(state)} requests that wait are no batch of {batch}",
                "corrupt",
            )
        left = list(heads)
        each: list[Request] = []
        for i in range(batch):
            if i in state:
                own = checked(f"request {i}", state[i], WAITING)
                each.append(Waiting(own["keys"], own["values"], PromptQueries(own["queries"])))
            else:
                each.append([left.pop(0) for _ in range(len(heads) // planned)])
        return Requests(options, rotary, each)
