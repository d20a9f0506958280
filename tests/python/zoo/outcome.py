"""What comes of a model class: it retrieves, attends in full and says why, or is refused."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import keyseek
from keyseek.hf import LayerReport

from . import runs
from .exceptions import NOT_BUILDABLE
from .runs import STEPS, TURN, NotBuildable, Text

TOLERANCE = 1e-4
RETRIEVES, IN_FULL, REFUSED = "retrieves", "attended in full", "refused"
NOT_BUILDABLE_KIND = "not buildable"


@dataclass(frozen=True)
class Outcome:
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def outcome_of(name: str, **changes: Any) -> Outcome:
    """Of that class, with changes of its configuration. Throws AssertionError for whatever else
    comes of it."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            eager = runs.make(name, **changes)
        except Exception as error:  # whatever transformers raises: none of our code has run
            return _not_buildable(name, error)
        try:
            texts = _texts(eager)
        except Exception as error:
            return _refusal_of(name, lambda: runs.ours(runs.switched(eager))) or _not_buildable(
                name, error
            )
        seen: list[Outcome] = []
        refused = _refusal_of(name, lambda: seen.extend(_read_all(eager, texts)))
    assert name not in NOT_BUILDABLE, f"{name} is listed as not buildable: {seen or refused}"
    assert len(set(seen)) == 1 or refused, f"padding changes what is done: {seen}"
    return refused or seen[0]


def _read_all(eager: nn.Module, texts: list[tuple[Text, Tensor]]) -> list[Outcome]:
    model = runs.switched(eager)
    return [_beside(model, *each) for each in texts]


def _refusal_of(name: str, act: Callable[[], object]) -> Outcome | None:
    """The refusal that `act` ends in; None if it ends well."""
    try:
        act()
    except keyseek.Error as error:
        _require_good_sentence(name, str(error))
        return Outcome(REFUSED, str(error))
    return None


def _not_buildable(name: str, error: Exception) -> Outcome:
    assert name in NOT_BUILDABLE, f"transformers cannot run {name} small: {error!r}"
    return Outcome(NOT_BUILDABLE_KIND, NOT_BUILDABLE[name])


def _texts(eager: nn.Module) -> list[tuple[Text, Tensor]]:
    """What the model can read with its own attention and cache, and its logits: a prompt, steps
    and a turn of several tokens; the same as a padded batch."""
    found: list[tuple[Text, Tensor]] = []
    refusal: Exception | None = None
    for padded, ways in ((False, (STEPS + TURN, STEPS)), (True, (STEPS[:6] + TURN[:5], STEPS[:8]))):
        for steps in ways:
            text = runs.text(steps, padded)
            try:
                logits = runs.feed(eager, text, runs.own_cache(eager, len(text.ids)))
            except Exception as error:  # what eager attention refuses by itself is not asked of us
                refusal = refusal or error
                continue
            if not padded:
                assert logits.isfinite().all(), "its logits are not finite"
            if logits.isfinite().all():
                found.append((text, logits))
                break
    if not found or found[0][0].mask is not None:
        raise refusal or NotBuildable("it reads no text")
    return found


def _beside(model: nn.Module, text: Text, theirs: Tensor) -> Outcome:
    """Reads the text with our cache."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache = runs.ours(model)
        ours = runs.feed(model, text, cache)
    error = runs.distance(ours, theirs)
    kind = "the padded batch" if text.mask is not None else "the text"
    assert error < TOLERANCE, f"logits of {kind} are off by {error:.1e}: {cache.report()}"
    assert cache.get_seq_length() == sum(text.pieces)
    report = cache.report().layers
    for layer in report:
        assert layer.retrieves or layer.reason, f"layer {layer.layer} does not retrieve, unsaid"
    if any(layer.retrieves for layer in report):
        return Outcome(RETRIEVES, _which(report))
    said = [str(each.message) for each in caught if each.category is keyseek.hf.RetrievalWarning]
    assert len(said) == 1, f"nothing retrieves, and {len(said)} warnings say so"
    reasons = dict.fromkeys(layer.reason for layer in report)
    return Outcome(IN_FULL, "; ".join(reasons))


def _which(report: tuple[LayerReport, ...]) -> str:
    """Of layers of which some retrieve: which, and why the others do not."""
    others = list(dict.fromkeys(layer.reason for layer in report if not layer.retrieves))
    notes = list(dict.fromkeys(layer.note for layer in report if layer.note))
    if not others:
        return "; ".join(["all layers", *notes])
    return "; ".join([f"not where {' or '.join(others)}", *notes])


def _require_good_sentence(name: str, sentence: str) -> None:
    """A refusal names what it is about, and says what to do."""
    assert re.search(r"\b(use|call|load|give|pass|set|read)\b", sentence), f"no advice: {sentence}"
    about = rf"{name}|the model|[Ll]ayer|\b[a-z]+_[a-z_]+ (is|=|hides)|attention_mask"
    assert re.search(about, sentence), f"of what? {sentence}"
    assert len(sentence) > 40, sentence
