"""The cache of one layer: plain until decoding begins, then a HeadCache per request and head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from .._core import HeadCache, HeadPlan, step_heads, truncate_heads
from ..errors import InvalidArgument
from . import device as devices
from .arguments import AttentionCall, require_same_call
from .attention import LAYER
from .copied import Copied
from .planning import LayerOptions, plan_heads, reason_against, retrieve_topk
from .queries import PromptQueries, rows
from .schema import PICKLED_LAYER, checked
from .stored import stored_dtype
from .turn import as_tensors, kept_by_crop, take_turn
from .visible import Visibility


class RetrievalLayer(Copied, DynamicLayer):
    """Keys and values of a layer that attends to everything.

    While a prompt is read it is a DynamicLayer that also keeps the newest queries. The first single
    token after a prompt that is long enough makes it plan; from then on it retrieves for single
    tokens, and `keys` and `values` are gone. Tensors on a CUDA device stay there until the plan is
    made; then the HeadCaches have everything, and a session on the device sink and window as well.

    A layer that cannot retrieve stays a DynamicLayer, and `reason` says why.
    """

    def __init__(
        self, options: LayerOptions, index: int, rotary: dict[str, Any], note: str = ""
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._options = options
        self._index = index
        self._rotary = rotary
        self.note = note
        self._forget()

    def _forget(self) -> None:
        self.heads: list[HeadCache] = []
        self.reason: str | None = None
        self._queries = PromptQueries()
        self._visible = Visibility()
        self._call: AttentionCall | None = None
        self._tokens = 0
        self._batch = 0
        self._attended = True  # the tokens of the last update
        self._session: devices.LayerSession | None = None

    def state(self) -> dict[str, Any]:
        """What a file has of it beside its heads: schema.RETRIEVAL_LAYER, but for kind and read."""
        call = self._call
        return {
            "heads": len(self.heads),
            "batch": self._batch,
            "tokens": self._tokens,
            "reason": self.reason,
            "visible": self._visible.state(),
            "scale": None if call is None else call.scale,
            "softcap": None if call is None else call.softcap,
            "sinks": None if call is None else call.sinks,
            "keys": self.keys,
            "values": self.values,
            "queries": self._queries.pieces,
        }

    def restore(self, state: dict[str, Any], heads: list[HeadCache]) -> None:
        """Takes over what `state` gave."""
        self.heads = heads
        self._batch, self._tokens = state["batch"], state["tokens"]
        self.reason = state["reason"]
        self._visible = Visibility.restored(state["visible"])
        if state["scale"] is not None:
            self._call = AttentionCall(state["scale"], state["softcap"], state["sinks"])
        self._queries = PromptQueries(state["queries"])
        self.keys, self.values = state["keys"], state["values"]
        if self.keys is not None:
            self.dtype, self.device = self.keys.dtype, self.keys.device
            self.is_initialized = True

    def copy(self) -> RetrievalLayer:
        """A layer that goes its own way from here; what is indexed stays shared, and tensors are,
        since a layer never changes them in place."""
        other: RetrievalLayer = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.heads = [head.copy() for head in self.heads]
        other._queries = self._queries.copy()
        other._visible = self._visible.copy()
        other._session = None  # their windows differ from here on
        return other

    def __getstate__(self) -> dict[str, Any]:
        own = {"options": self._options, "index": self._index, "rotary": self._rotary}
        return {**own, "note": self.note, "caches": self.heads, **self.state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        checked("a pickled layer", state, PICKLED_LAYER)
        RetrievalLayer.__init__(
            self, *(state[name] for name in ("options", "index", "rotary", "note"))
        )
        self.restore(state, state["caches"])

    @property
    def retrieving(self) -> bool:
        return bool(self.heads)

    @property
    def requests(self) -> int:
        return self._batch

    def why_not(self) -> str:
        """Why the layer attends to everything, as it is; empty once it retrieves."""
        if self.retrieving:
            return ""
        if self.reason is not None:
            return self.reason
        if self._tokens == 0:
            return "no prompt has been read"
        if self._call is None:
            return (
                "its keys never came to the attention 'keyseek': the model computes this layer's "
                "attention itself, or from other keys than it caches"
            )
        least, shortest = self._options.least_tokens, self._shortest()
        if shortest < least:
            whose = "the shortest request of the batch has" if self._batch > 1 else "there are"
            return f"{whose} {shortest} tokens: from {least} on it is worth it"
        if not self._queries.suffice:
            return "its queries were taken back with the end of the text: it waits for others"
        return "the plan is made at the first single token after the prompt"

    def is_merely_short(self) -> bool:
        """Whether it does not retrieve because no request is long enough, or because it waits for
        queries after a crop: nothing to warn of."""
        if self.reason is not None or self._call is None:
            return False
        return (
            not self._queries.suffice
            or max(self._visible.lengths(self._batch)) < self._options.least_tokens
        )

    def heads_to_plan(self) -> int:
        """How many HeadCaches a plan would make now."""
        return self._batch * self._stored()[0].shape[1] if self._can_plan() else 0

    def stop(self, reason: str) -> None:
        """From now on the layer attends to everything."""
        self.reason = reason
        self._queries = PromptQueries()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Takes keys and values [B, Hkv, q, d] of new tokens.

        Returns what the attention function needs: all of them, or only the new ones once the
        layer retrieves; the keys carry this layer along.
        """
        if self._tokens == 0 and devices.retrieves_beside(key_states.device):
            dtype = stored_dtype(key_states, value_states, self._options.dtype)
            devices.require_session(key_states.device, key_states, value_states, dtype)
        if self.retrieving and key_states.shape[0] != self._batch:
            raise InvalidArgument(
                f"keys are of {key_states.shape[0]} requests, the cache of {self._batch}"
            )
        if key_states.shape[-2] == 1:
            self.plan()
        if self.retrieving:
            if not self._attended:
                raise InvalidArgument(
                    f"layer {self._index} was given tokens that were never attended, since a call "
                    "of the model failed or its attention goes another way: crop the cache to "
                    f"{self._visible.tokens} tokens, or reset it and read the text anew"
                )
            # The tensor object is a new one, since it carries the attribute.
            keys, values = key_states.view_as(key_states), value_states
        else:
            keys, values = super().update(key_states, value_states)
            keys = keys.view_as(keys)
            self._batch = key_states.shape[0]
        self._tokens += key_states.shape[-2]
        self._attended = False
        setattr(keys, LAYER, self)
        return keys, values

    def observe(self, query: Tensor, mask: Tensor | None, call: AttentionCall) -> None:
        """Keeps the newest queries [B, Hq, q, d] of a prompt, and which of its tokens are there."""
        reason = self.reason or reason_against(query, self._stored()[0], mask, call)
        if self._attended and reason is None:
            reason = (
                "its keys are attended more than once (layers that share keys, or attention that "
                "is called twice)"
            )
        self._attended, self._call = True, call
        if reason is not None:
            self.stop(reason)
            return
        self._visible.read_prompt(mask, query.shape[0], self._tokens)
        self._queries.add(query, self._options.params.plan_positions(self._tokens))

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, call: AttentionCall
    ) -> Tensor:
        """query [B, Hq, q, d], new key, value [B, Hkv, q, d] -> [B, q, Hq, dv]: retrieved for one
        token, exact for more."""
        batch, query_heads, count, _ = query.shape
        self._require_same_call(call, query, mask)
        visible = self._visible.copy()
        fresh = visible.extend(mask, batch, count)
        states = query, key, value
        token = query[:, :, 0], key[:, :, 0], value[:, :, 0]
        if count > 1:
            out = take_turn(self._requests(), states, fresh, call, self._options.pool)
        elif fresh is not None:
            out = self._step_some(*token, fresh[:, 0])
        elif devices.retrieves_beside(query.device):
            out = self._step_beside(*token)
        else:
            out = self._step_here(*token)
        self._visible, self._attended = visible, True
        if count > 1 and self._session is not None:
            self._session.load(self.heads)
        return out.view(batch, count, query_heads, -1).to(query.dtype)

    def _require_same_call(self, call: AttentionCall, query: Tensor, mask: Tensor | None) -> None:
        """The plan was made for calls of one kind, and a token is attended once."""
        planned = self._call
        assert planned is not None
        if self._attended:
            raise InvalidArgument(
                f"layer {self._index} is attended a second time for the same tokens, which it was "
                "not while the prompt was read"
            )
        require_same_call(call, planned, self._index)
        if mask is None and query.shape[2] > 1 and call.is_causal is False:
            raise InvalidArgument(
                "is_causal is False, but a cache that retrieves attends to what came before"
            )

    def _step_here(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [B, Hq, d], key and value [B, Hkv, d] -> [B * Hq, dv]."""
        return torch.from_numpy(
            step_heads(self.heads, rows(query), rows(key), rows(value), self._options.pool)
        )

    def _step_some(self, query: Tensor, key: Tensor, value: Tensor, present: Tensor) -> Tensor:
        """The same for requests whose token is there; those of the others are not taken, and get
        zeros."""
        if devices.retrieves_beside(query.device):
            raise InvalidArgument(
                "attention_mask hides new tokens of some requests of a batch, which is not served "
                "on a GPU: give every request its own cache"
            )
        out = torch.zeros(len(query), query.shape[1], self.heads[0].value_dim)
        some = present.nonzero()[:, 0]
        if len(some):
            heads = [head for request in some.tolist() for head in self._heads_of(request)]
            found = step_heads(
                heads, rows(query[some]), rows(key[some]), rows(value[some]), self._options.pool
            )
            out[some] = torch.from_numpy(found).view(len(some), query.shape[1], -1)
        return out.view(-1, out.shape[-1])

    def _step_beside(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`_step_here` with sink and window on the tensors' device. The heads have all tokens, so a
        session can be made at any time: here after planning, loading, or a change of stream."""
        if self._session is None or self._session.stream != devices.current_stream(query.device):
            self._session = devices.LayerSession(self.heads, query.device)
        return self._session.step(self.heads, self._options.pool, query, key, value)

    def retrieve_topk(self, queries: Tensor, k: int | None) -> tuple[Tensor, Tensor]:
        """See RetrievalCache.retrieve_topk."""
        return retrieve_topk(self.heads, self._batch, queries, k)

    def plans(self) -> list[HeadPlan]:
        """The plans of all requests' KV heads, request after request; none until it retrieves."""
        return [head.plan for head in self.heads]

    def get_seq_length(self) -> int:
        return self._tokens

    def get_mask_sizes(self, query: Tensor | int, *args: Any) -> tuple[int, int]:
        # transformers 4 passes the new positions, transformers 5 their number.
        count = query if isinstance(query, int) else query.shape[0]
        return self._tokens + count, 0

    def reset(self) -> None:
        self._forget()
        self.keys = self.values = None
        self.is_initialized = False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self._visible.select(indices)
        if not self.retrieving:
            super().batch_select_indices(indices)
            self._queries.select(indices)
            self._batch = len(indices)
            return
        chosen = indices.tolist()
        # A request that is chosen once moves, one that is chosen again is copied.
        seen: set[int] = set()
        heads: list[HeadCache] = []
        for request in chosen:
            own = self._heads_of(request)
            heads += [head.copy() for head in own] if request in seen else own
            seen.add(request)
        if self._session is not None and len(heads) == len(self.heads):
            self._session.load(heads)
        else:
            self._session = None  # the next step makes one of the new size
        self.heads, self._batch = heads, len(chosen)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self._batch:
            self.batch_select_indices(torch.arange(self._batch).repeat_interleave(repeats))

    def crop(self, tokens: int) -> None:
        self.keep(kept_by_crop(tokens, self._tokens))

    def keep(self, kept: int) -> None:
        """Takes back all tokens but the first `kept`."""
        if kept >= self._tokens:
            return
        if self.retrieving:
            self._take_back(kept)
        else:
            self.keys, self.values = (states[..., :kept, :] for states in self._stored())
            self._queries.take_back(self._tokens - kept)
            self._visible.crop(kept)
        self._tokens = kept

    def _take_back(self, kept: int) -> None:
        """Of a layer that retrieves. With fewer tokens than a plan is made for, or without what the
        plan was made of, it is what it was before there was a plan."""
        visible, pool = self._visible.copy(), self._options.pool
        visible.crop(kept)
        lengths = visible.lengths(self._batch)
        holds = min(lengths) >= self._options.least_tokens
        if holds:
            plans = [plan.retriever for plan in self.plans()]
            truncate_heads(self.heads, [n for n in lengths for _ in self._heads_of(0)], pool)
            holds = plans == [plan.retriever for plan in self.plans()]
            self._visible, self._tokens = visible, kept
        if not holds:
            states = as_tensors(self._requests(), self._visible, self._stored()[0], pool)
            self.keys, self.values = (each[..., :kept, :] for each in states)
            self.heads, self._session = [], None
        elif self._session is not None:
            self._session.load(self.heads)
        self._visible = visible
        # Tokens that a failed call left behind were not attended, and are gone.
        self._attended = self._attended or kept <= visible.tokens

    def _heads_of(self, request: int) -> list[HeadCache]:
        each = len(self.heads) // self._batch
        return self.heads[request * each : (request + 1) * each]

    def _requests(self) -> list[list[HeadCache]]:
        return [self._heads_of(request) for request in range(self._batch)]

    def _stored(self) -> tuple[Tensor, Tensor]:
        """Keys and values of what was read, while they are tensors."""
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def _shortest(self) -> int:
        return min(self._visible.lengths(self._batch))

    def _can_plan(self) -> bool:
        is_ready = not self.retrieving and self._queries.suffice
        return is_ready and self._shortest() >= self._options.least_tokens

    def plan(self) -> None:
        """Turns the prompt into HeadCaches, if it is long enough and they are not there yet."""
        if not self._can_plan():
            return
        self.heads = [h for request in range(self._batch) for h in self._plan_request(request)]
        self._queries = PromptQueries()
        self.keys, self.values = (states[..., :0, :].clone() for states in self._stored())

    def _plan_request(self, request: int) -> list[HeadCache]:
        """The HeadCaches of one request's KV heads."""
        assert self._call is not None
        keys, values = (states[request].cpu() for states in self._stored())
        queries = self._queries.of(request)
        there = self._visible.of(request)
        if there is not None:
            keys, values = keys[:, there], values[:, there]
            queries = queries[:, there[-queries.shape[1] :]]
        return plan_heads(self._options, self._rotary, self._call, keys, values, queries)
