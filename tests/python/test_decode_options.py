"""DecodeParams: an object or keywords, and the refusal of what nobody would read."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import keyseek
from conftest import SAMPLE

PROMPT = 2500


@pytest.fixture(scope="module")
def prefill():
    """A cache of the prompt; options as of HeadCache.prefill."""
    head = keyseek.read_capture(SAMPLE, 2)

    def make(**options) -> keyseek.HeadCache:
        return keyseek.HeadCache.prefill(
            head.keys[:PROMPT],
            head.values[:PROMPT],
            head.queries(PROMPT // 2, PROMPT),
            head.group,
            scale=head.scale,
            threads=1,
            **head.rotary,
            **options,
        )

    return make


PLANNER = {"max_error", "safety", "confidence", "max_planted_error", "max_k", "may_miss"}
SEARCHED = {"rule", "least_k", "k"}
INDEX = {"max_memory", "share", "target_recall", "scan_novel"}
# Which options nobody reads, by retriever. (None as a limit is none.)
UNREAD = {
    "everything": PLANNER
    | SEARCHED
    | INDEX
    | {"plan_share", "held_out", "tail_vectors", "observed"},
    "none": PLANNER | SEARCHED | INDEX,
    "flat": PLANNER | INDEX | {"least_k"},
    "sketch": PLANNER | INDEX - {"share"} | {"least_k"},
    "projection": PLANNER | {"least_k"},
    "complete": PLANNER | {"target_recall", "scan_novel", "least_k"},
    None: {"scan_novel"},
}


@pytest.mark.parametrize("retriever", UNREAD)
def test_an_option_that_nobody_reads_is_refused(prefill, retriever):
    """Also where it is given as it is by default, and by an object where it is not."""
    plan = {} if retriever is None else {"retriever": retriever}
    params = keyseek.DecodeParams(**plan)
    given = {"k", "limit", "target_recall"}
    for name in (name for names in params.groups.values() for name in names):
        value = getattr(params, name)
        if value is None or name in ("scale", "retriever"):
            continue
        if name in UNREAD[retriever]:
            for call in (keyseek.DecodeParams, prefill):
                with pytest.raises(keyseek.InvalidArgument, match=f"{name} is .*, but "):
                    call(**plan, **{name: value})
        else:
            assert keyseek.DecodeParams(**plan, **{name: value}) == params
    base = keyseek.DecodeParams(max_error=0.02)
    if retriever is not None:
        with pytest.raises(keyseek.InvalidArgument, match=r"max_error is 0\.02, but retriever is"):
            base.replace(**plan)
        with pytest.raises(keyseek.InvalidArgument, match=r"max_error is 0\.02, but retriever is"):
            prefill(params=base, **plan)
        with pytest.raises(keyseek.InvalidArgument, match="limit is 3"):
            prefill(**plan, limit=3.0)
        with pytest.raises(keyseek.InvalidArgument, match=r"k is 0, .*which searches for no keys"):
            prefill(**plan, k=0)
        with pytest.raises(keyseek.InvalidArgument, match="index is a search of your own, but"):
            prefill(**plan, index=len)
    else:
        with pytest.raises(keyseek.InvalidArgument, match="may_miss is true, but index is"):
            prefill(may_miss=True, index=len)
        for name in given:
            with pytest.raises(keyseek.InvalidArgument, match=f"{name} is .*only a given plan"):
                prefill(**{name: 1})
    unmoved = {"shift": False, "theta": 1e6}
    with pytest.raises(keyseek.InvalidArgument, match="theta is 1000000, but shift is false"):
        keyseek.DecodeParams(**plan, **unmoved)


def test_params_are_an_object_or_keywords(prefill):
    """Each option has one name; keywords come before the object."""
    params = keyseek.DecodeParams(retriever="flat", k=40, tail_vectors=16)
    assert params == keyseek.DecodeParams().replace(retriever="flat", k=40, tail_vectors=16)
    assert prefill(params=params).plan.k == 40
    assert prefill(params=params, k=50).plan.k == 50
    assert (params.sink, params.rule, params.limit, params.index) == (128, "top-k", None, None)
    for name in (name for names in params.groups.values() for name in names):
        value = getattr(params, name)
        if name in UNREAD["flat"]:
            with pytest.raises(keyseek.InvalidArgument, match=f"{name} is .*, but "):
                params.replace(**{name: value})
        elif name != "scale":  # which is still to come
            assert params.replace(**{name: value}) == params, name
    assert "retriever='flat', k=40" in repr(params)
    with pytest.raises(AttributeError):
        params.sink = 5
    logits = params.replace(null_logits=np.array([1.0, -2.5], "f4"))
    np.testing.assert_array_equal(logits.null_logits, np.array([1.0, -2.5], "f4"))
    for way in (copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))):
        assert way(logits) == logits
