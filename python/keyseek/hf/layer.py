"""The cache of one layer: plain until decoding begins, then a HeadCache per request and head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from .._core import HeadCache, HeadPlan
from ..errors import InvalidArgument
from . import device as devices
from .arguments import AttentionCall, require_same_call
from .attention import LAYER
from .copied import Copied
from .planning import LayerOptions, reason_against
from .queries import PromptQueries
from .requests import Request, Requests
from .schema import PICKLED_LAYER, checked
from .stored import stored_dtype
from .turn import kept_by_crop
from .visible import Visibility
from .waiting import Waiting


class RetrievalLayer(Copied, DynamicLayer):
    """Keys and values of a layer that attends to everything.

    While a prompt is read it is a DynamicLayer that also keeps the newest queries. The first single
    token after a prompt that is long enough makes it plan, for those requests of a batch that are;
    from then on these retrieve for single tokens, each request goes its own way, and `keys` and
    `values` are gone. Tensors on a CUDA device stay there until a plan is made; then the HeadCaches
    have everything, and a session on the device sink and window as well.

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
        self._planned: Requests | None = None  # from the first plan on
        self.reason: str | None = None
        self._queries = PromptQueries()
        self._visible = Visibility()
        self._call: AttentionCall | None = None
        self._tokens = 0
        self._batch = 0
        self._attended = True  # the tokens of the last update

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
            "waiting": {} if self._planned is None else self._planned.state(),
        }

    def restore(self, state: dict[str, Any], heads: list[HeadCache]) -> None:
        """Takes over what `state` gave."""
        self._batch, self._tokens = state["batch"], state["tokens"]
        if heads or state["waiting"]:
            own = self._options, self._rotary
            self._planned = Requests.restored(*own, self._batch, state["waiting"], heads)
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
        other._planned = None if self._planned is None else self._planned.copy()
        other._queries = self._queries.copy()
        other._visible = self._visible.copy()
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
        """Whether a plan has been made: its requests retrieve, or wait each for itself."""
        return self._planned is not None

    @property
    def heads(self) -> list[HeadCache]:
        """Of all requests that retrieve, request after request."""
        return [] if self._planned is None else self._planned.heads

    def planned(self) -> list[tuple[int, list[HeadCache]]]:
        """The requests that retrieve by number, and their heads."""
        return [] if self._planned is None else self._planned.planned()

    def plans(self) -> list[HeadPlan]:
        """The plans of `heads`."""
        return [head.plan for head in self.heads]

    def why_some_wait(self) -> str:
        """Which requests attend to everything although others retrieve, and why."""
        return "" if self._planned is None else self._planned.why_some_wait()

    def why_not(self) -> str:
        """Why the layer attends to everything, as it is; empty once it retrieves."""
        if self.heads:
            return ""
        if self._planned is not None:
            return self._planned.why_some_wait()
        if self.reason is not None:
            return self.reason
        if self._tokens == 0:
            return "no prompt has been read"
        if self._call is None:
            return (
                "its keys never came to the attention 'keyseek': the model computes this layer's "
                "attention itself, or from other keys than it caches"
            )
        least, longest = self._options.least_tokens, max(self._visible.lengths(self._batch))
        if longest < least:
            whose = "the longest request of the batch has" if self._batch > 1 else "there are"
            return f"{whose} {longest} tokens: from {least} on it is worth it"
        if not any(self._queries.suffice_of(*each) for each in self._present()):
            return "its queries were taken back with the end of the text: it waits for others"
        return "the plan is made at the first single token after the prompt"

    def is_merely_short(self) -> bool:
        """Whether it does not retrieve because no request is long enough, or because it waits for
        queries after a crop: nothing to warn of."""
        return self.reason is None and self._call is not None

    def heads_to_plan(self) -> int:
        """How many HeadCaches a plan would make now."""
        if self._planned is not None:
            return self._planned.heads_to_plan()
        return sum(self._ready()) * self._stored()[0].shape[1] if self.is_initialized else 0

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
        assert self._planned is not None
        visible = self._visible.copy()
        fresh = visible.extend(mask, batch, count)
        out = self._planned.attend((query, key, value), fresh, call)
        self._visible, self._attended = visible, True
        return out.reshape(batch, count, query_heads, -1).to(query.dtype)

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

    def retrieve_topk(self, queries: Tensor, k: int | None) -> tuple[Tensor, Tensor]:
        """See RetrievalCache.retrieve_topk."""
        assert self._planned is not None
        return self._planned.retrieve_topk(queries, k)

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
        if self._planned is None:
            super().batch_select_indices(indices)
            self._queries.select(indices)
        else:
            self._planned.select(indices.tolist())
        self._batch = len(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self._batch:
            self.batch_select_indices(torch.arange(self._batch).repeat_interleave(repeats))

    def crop(self, tokens: int) -> None:
        self.keep(kept_by_crop(tokens, self._tokens))

    def keep(self, kept: int) -> None:
        """Takes back all tokens but the first `kept`."""
        if kept >= self._tokens:
            return
        if self._planned is None:
            self.keys, self.values = (states[..., :kept, :] for states in self._stored())
            self._queries.take_back(self._tokens - kept)
            self._visible.crop(kept)
        else:
            self._take_back(kept, self._planned)
        self._tokens = kept

    def _take_back(self, kept: int, planned: Requests) -> None:
        """Of a layer that retrieves. Where no request does any more, it is what it was before."""
        visible = self._visible.copy()
        visible.crop(kept)
        like = self._stored()[0]
        lost = planned.keep(visible.lengths(self._batch), like)
        self._visible, self._tokens = visible, kept
        planned.let_wait(lost, like)
        if not planned.heads:
            self.keys, self.values = planned.as_tensors(visible, self._stored())
            self._planned = None
        # Tokens that a failed call left behind were not attended, and are gone.
        self._attended = self._attended or kept <= visible.tokens

    def _stored(self) -> tuple[Tensor, Tensor]:
        """Keys and values of what was read, while they are tensors; then such tensors, of none."""
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def _present(self) -> list[tuple[int, Tensor | None]]:
        """Requests, and which of their tokens are there."""
        return [(request, self._visible.of(request)) for request in range(self._batch)]

    def _ready(self) -> list[bool]:
        """Of the requests, while all are tensors, whether a plan can be made."""
        lengths = self._visible.lengths(self._batch)
        return [
            lengths[i] >= self._options.least_tokens and self._queries.suffice_of(i, there)
            for i, there in self._present()
        ]

    def plan(self) -> None:
        """Turns what was read of the requests that are long enough by now into HeadCaches."""
        if self._planned is None and not any(self._ready()):
            return
        assert self._call is not None
        planned = self._planned
        if planned is None:
            requests: list[Request] = [self._request(*each) for each in self._present()]
            planned = Requests(self._options, self._rotary, requests)
        planned.plan(self._call)
        if self._planned is None:
            self._planned, self._queries = planned, PromptQueries()
            self.keys, self.values = (states[..., :0, :].clone() for states in self._stored())

    def _request(self, request: int, there: Tensor | None) -> Waiting:
        """What was read of it alone."""
        keys, values = (states[request] for states in self._stored())
        if there is not None:
            keys, values = (states[:, there.to(states.device)] for states in (keys, values))
        return Waiting(keys, values, self._queries.of(request, there))
