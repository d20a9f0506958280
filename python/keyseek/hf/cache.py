"""The cache that transformers' generate takes."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from .._core import DecodeParams
from ..errors import InvalidArgument
from .choice import AttentionChoice
from .construction import (
    make_layers,
    note_on,
    params_for,
    pool_of,
    require_not_of_the_model,
)
from .copied import Copied
from .fingerprint import TokenIds, fingerprint_of, require_same_tokens, tokens_hash
from .layer import RetrievalLayer
from .planning import LayerOptions
from .prefix import params_of, read_state, restore_layers, save_layers
from .progress import PlanProgress
from .report import (
    CacheReport,
    HeadReport,
    LayerReport,
    RetrievalWarning,
    plan_lines,
    sentences,
)
from .rotary import rotary_of
from .stored import checked_dtype, dtype_name, dtype_named
from .support import reason_of, require_attention, require_support
from .turn import kept_by_crop
from .whole import whole_number

if TYPE_CHECKING:
    from typing_extensions import Self


class RetrievalCache(Copied, DynamicCache):
    """A DynamicCache whose layers retrieve once decoding has begun.

    model: the model, whose attention must be "keyseek"; or its configuration. max_error: wanted
    mean of |out - full| / |full| of a layer's attention output, head by head. dtype: keys and
    values are stored as this; "auto": float16, or what holds them if that does not; None: as the
    model gives them; on a GPU float16 or bfloat16. threads: for planning and for steps; 0: as
    PyTorch. progress: while planning, True for a bar, or a function that is called with the number
    of heads planned and of all. params, options: those of keyseek.DecodeParams, as an object or by
    name (sink, window, pinned, ...; or a given plan by retriever, k, ...), but for the groups
    "logits" and "rotary embedding", which the model says; without `params` refresh_delay is a
    quarter of the horizon. InvalidArgument names an option that
    nobody would read, as max_error beside a given plan.

    A prompt is read with full attention, in one piece or several; the plan is made before the
    first single token after it. Prompts that are too short to gain anything, and tokens until
    there are enough, are attended to in full; of a batch each request by its own length. `report`
    says what each layer does and why; a RetrievalWarning is given once where a layer was expected
    to retrieve and does not. A cache serves one batch; `reset` frees it for the next. Several
    tokens at once, as the next turn of a conversation or the drafts of a speculative decoder, are
    attended exactly, over all tokens.
    """

    def __init__(
        self,
        model: Any,
        max_error: float | None = None,
        *,
        params: DecodeParams | None = None,
        dtype: torch.dtype | str | None = "auto",
        threads: int = 0,
        progress: bool | Callable[[int, int], None] = False,
        **options: Any,
    ) -> None:
        config = model.config if isinstance(model, PreTrainedModel) else model
        text = config.get_text_config(decoder=True)
        require_not_of_the_model(options)
        if max_error is not None:
            options["max_error"] = max_error
        self._params = params_for(params, options)
        self._dtype = checked_dtype(dtype)
        require_support(config, text, model if isinstance(model, PreTrainedModel) else None)
        make_layers(super(), config)
        self._made_for = config
        self._config = text
        self._progress = PlanProgress(progress)
        self._said = False
        shared = LayerOptions(
            params=self._params,
            dtype=self._dtype,
            pool=pool_of(threads),
            progress=self._progress.step,
        )
        # Says by index why layers of transformers' own stay.
        self._left_alone: dict[int, str] = {}
        kinds = getattr(text, "layer_types", None) or ["full_attention"] * len(self.layers)
        for i, (layer, kind) in enumerate(zip(self.layers, kinds, strict=False)):
            if (reason := reason_of(layer, kind)) is not None:
                self._left_alone[i] = reason
        if len(self._left_alone) == len(self.layers):
            reasons = "; ".join(dict.fromkeys(self._left_alone.values())) or "it has no layers"
            raise InvalidArgument(
                "the model has no layer of plain full attention, nothing to retrieve for "
                f"({reasons}): use a DynamicCache, or what the model makes itself"
            )
        rotary = rotary_of(model)
        self._fingerprint = fingerprint_of(model, rotary)
        for i in set(range(len(self.layers))) - set(self._left_alone):
            self.layers[i] = RetrievalLayer(shared, i, rotary[i].options(), note_on(rotary[i]))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        require_attention(self._config)
        if layer_idx >= len(self.layers):
            raise InvalidArgument(
                f"layer {layer_idx} of a model, but the cache was made for one of "
                f"{len(self.layers)} layers"
            )
        layer = self.layers[layer_idx]
        if isinstance(layer, RetrievalLayer):
            _require_new_tokens(args, layer.get_seq_length())
            if key_states.shape[-2] == 1:
                self._progress.begin(self._heads_to_plan)
        updated = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if not self._said and key_states.shape[-2] == 1 and layer_idx == self._last_layer():
            self._said = True
            self._say_what_does_not_retrieve()
        return updated

    @classmethod
    def from_model(cls, model: Any, max_error: float | None = None, **options: Any) -> Self:
        """A cache for a model, whose attention becomes "keyseek" and stays so; nothing is changed
        where the cache cannot be made. See `retrieval` for a while only."""
        choice = AttentionChoice(model)
        try:
            choice.take_ours()
            return cls(model, max_error, **options)
        except BaseException:
            choice.set_back()
            raise

    def reset(self) -> None:
        """Empties it for another text. Layers of transformers' own are made anew, since some
        versions keep zeros of the old text in them."""
        made: list[Any] = DynamicCache(config=self._made_for).layers
        for i, layer in enumerate(self.layers):
            if isinstance(layer, RetrievalLayer) or i >= len(made):
                layer.reset()
            else:
                self.layers[i] = made[i]

    def plan(self) -> None:
        """Makes the plan now, which the first single token after the prompt does otherwise."""
        self._progress.begin(self._heads_to_plan)
        for _, layer in self._retrieval_layers():
            layer.plan()

    def copy(self) -> Self:
        """A cache that continues the same text another way; what is indexed is shared. So do
        copy.copy and copy.deepcopy."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.layers = [
            # Some layers of transformers' own change their tensors in place.
            layer.copy() if isinstance(layer, RetrievalLayer) else copy.deepcopy(layer)
            for layer in self.layers
        ]
        return other

    def save(self, path: str | os.PathLike[str], *, tokens: TokenIds | None = None) -> None:
        """Plans, then writes all of it to a new folder, for a prompt that many requests share.

        tokens: ids [n] or [B, n] of all that was read, for `load` to compare with; only a hash of
        them is kept.
        """
        if self._params.index is not None:
            raise InvalidArgument("index is a search of your own, which cannot be saved")
        about = {
            "dtype": dtype_name(self._dtype),
            "params": self._params.to_text(),
            "fingerprint": self._fingerprint.state(),
            "tokens": None if tokens is None else tokens_hash(tokens, self._tokens()),
        }
        self.plan()
        save_layers(self.layers, about, path)

    @classmethod
    def load(
        cls,
        model: Any,
        path: str | os.PathLike[str],
        *,
        threads: int = 0,
        device: torch.device | str = "cpu",
        tokens: TokenIds | None = None,
    ) -> Self:
        """What `save` wrote, for the same model (or its configuration) on `device`. Indexed keys
        are mapped: processes share them.

        tokens: ids [m] or [B, m] that the cache is to go on with; InvalidArgument unless the first
        of them are those that it was saved with.
        """
        state = read_state(path, device)
        params = params_of(state, path)
        cache = cls(model, params=params, dtype=dtype_named(state["dtype"]), threads=threads)
        restore_layers(cache.layers, cache._fingerprint, state, path)
        if tokens is not None:
            require_same_tokens(state["tokens"], tokens, cache._tokens(), str(path))
        return cache

    @property
    def retrieving(self) -> bool:
        """Whether a plan has been made and decode steps retrieve, of one request at least."""
        return any(layer.heads for _, layer in self._retrieval_layers())

    @property
    def nbytes(self) -> int:
        """Memory of the layers that retrieve: keys, values, indexes, tails."""
        return sum(head.nbytes for _, layer in self._retrieval_layers() for head in layer.heads)

    def report(self) -> CacheReport:
        """What each layer does: the plan of its heads, or why it attends in full. `print` it."""
        return CacheReport(tuple(self._report_of(i) for i in range(len(self.layers))))

    def plan_table(self) -> str:
        """The plan of every layer and KV head as text; empty until there is one."""
        return "\n".join(plan_lines(self.report().layers))

    def last_step(self) -> dict[str, float]:
        """What the last decode step cost, on average over all heads that retrieve.

        Keys attended per query, keys scanned and bytes read per head, and the bytes that full
        attention would have read of the same tokens as they are stored.
        """
        heads = [head for _, layer in self._retrieval_layers() for head in layer.heads]
        if not heads:
            return {}
        return {
            "retrieved_per_query": sum(h.stats.retrieved / h.group for h in heads) / len(heads),
            "scanned_per_head": sum(h.stats.scanned for h in heads) / len(heads),
            "bytes_per_head": sum(h.stats.bytes_read for h in heads) / len(heads),
            "full_bytes_per_head": sum(h.full_bytes for h in heads) / len(heads),
        }

    def retrieve_topk(
        self, queries: Tensor, layer_idx: int, k: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The tokens that a layer would retrieve for queries [B, Hq, d] (after rotation).

        Returns indices [B, Hq, k] int64, positions in the request's own sequence, best first,
        padded with -1; and valid_lengths [B, Hq]. k: at most the tokens that were read; None for
        what the plans say. This is what engines with sparse attention over a paged cache ask for
        (SGLang's retrieve_topk).
        Sink and window are not among them: they are attended anyway.
        """
        layer_idx = whole_number(layer_idx, "layer_idx", 0, len(self.layers) - 1)
        layer = dict(self._retrieval_layers()).get(layer_idx)
        if layer is None or not layer.heads:
            raise InvalidArgument(f"layer_idx is {layer_idx}: that layer does not retrieve")
        return layer.retrieve_topk(queries, k)

    def __getitem__(self, layer_idx: int) -> Any:
        self._require_plain(f"cache[{layer_idx}]")
        layer = self.layers[layer_idx]
        return layer.keys, layer.values

    def __iter__(self) -> Any:
        self._require_plain("iterating over the cache")
        return super().__iter__()  # type: ignore[no-untyped-call]

    def to_legacy_cache(self) -> Any:
        """Keys and values of every layer, of a cache that does not retrieve (transformers 4)."""
        self._require_plain("to_legacy_cache")
        return tuple((layer.keys, layer.values) for layer in self.layers)

    def crop(self, tokens: int) -> None:
        """Takes back the end of the text. tokens: minus how many, or (before transformers 5) how
        many to keep."""
        kept = kept_by_crop(tokens, self._tokens())
        # Layers of transformers' own come first, since they may refuse.
        for other in self.layers:
            if not isinstance(other, RetrievalLayer):
                cast(Any, other).crop(tokens)
        for _, layer in self._retrieval_layers():
            layer.keep(kept)

    @property
    def is_croppable(self) -> bool:
        """Whether tokens can be taken back, which transformers 5 asks before it speculates."""
        return all(getattr(layer, "is_croppable", True) for layer in self.layers)

    def _require_plain(self, what: str) -> None:
        if any(layer.retrieving for _, layer in self._retrieval_layers()):
            raise InvalidArgument(
                f"{what} asks for all keys and values, which a cache that retrieves does not keep "
                "as tensors: ask before the first decode step, or save the cache"
            )

    def _retrieval_layers(self) -> list[tuple[int, RetrievalLayer]]:
        return [
            (i, layer) for i, layer in enumerate(self.layers) if isinstance(layer, RetrievalLayer)
        ]

    def _tokens(self) -> int:
        return self._retrieval_layers()[0][1].get_seq_length()

    def _last_layer(self) -> int:
        return self._retrieval_layers()[-1][0]

    def _heads_to_plan(self) -> int:
        return sum(layer.heads_to_plan() for _, layer in self._retrieval_layers())

    def _report_of(self, index: int) -> LayerReport:
        layer = self.layers[index]
        if not isinstance(layer, RetrievalLayer):
            return LayerReport(
                index, reason=self._left_alone.get(index, "the model put it there itself")
            )
        if not layer.heads:
            return LayerReport(index, reason=layer.why_not())
        heads = [
            HeadReport(
                request=request,
                head=i,
                plan=head.plan,
                tokens=len(head),
                indexed=head.indexed,
                full_bytes=head.full_bytes,
                nbytes=head.nbytes,
                last=head.stats,
                group=head.group,
                refreshing=head.refreshing,
            )
            for request, own in layer.planned()
            for i, head in enumerate(own)
        ]
        waiting = layer.why_some_wait()
        return LayerReport(index, note=layer.note, waiting=waiting, heads=tuple(heads))

    def _say_what_does_not_retrieve(self) -> None:
        """Warns of layers of full attention that attend to everything for another reason than a
        short prompt: nobody would see it in the answers, only in the time they take."""
        reports = [
            self._report_of(i)
            for i, layer in self._retrieval_layers()
            if layer.note or not (layer.heads or layer.is_merely_short())
        ]
        if reports:
            warnings.warn(" ".join(sentences(tuple(reports))), RetrievalWarning, stacklevel=2)


def _require_new_tokens(arguments: tuple[Any, ...], tokens: int) -> None:
    """transformers 4 says where new tokens are, and without use_cache hands the text over anew."""
    given = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
    position = given.get("cache_position")
    if position is None or position.device.type != "cpu" or int(position[0]) == tokens:
        return
    raise InvalidArgument(
        f"tokens from position {int(position[0])} on were handed over, but the cache has {tokens}: "
        "each token is given once (use_cache must not be False); reset the cache for another text"
    )
