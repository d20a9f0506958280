"""The analytical model of a decode step with a GPU, against what was published."""

from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import gpu_model as model

CONTEXTS = [2**exponent for exponent in range(12, 21)]


@pytest.mark.parametrize("method", model.PAPER)
def test_published_rows_within_a_quarter(method):
    predicted = model.predict_paper(method, model.PAPER_TOKENS, model.RTX_4090)
    assert predicted.total == pytest.approx(model.PAPER[method].total, rel=0.25)


@pytest.mark.parametrize("method", ["Flat", "IVF"])
def test_search_that_streams_within_a_quarter(method):
    predicted = model.predict_paper(method, model.PAPER_TOKENS, model.RTX_4090)
    assert predicted.search == pytest.approx(model.PAPER[method].search, rel=0.25)


def test_flat_search_reads_every_key_of_every_head_once():
    seconds = model.predict_paper("Flat", 131072, model.RTX_4090).search
    read = 32 * 32 * (131072 - 640) * 128 * 4
    assert seconds * model.RTX_4090.cpu.bytes_per_s == pytest.approx(read)


@pytest.mark.parametrize("machine", [model.RTX_4090, model.A100])
def test_longer_contexts_take_no_less(machine):
    for method in model.PAPER:
        totals = [model.predict_paper(method, n, machine).total for n in CONTEXTS]
        assert totals == sorted(totals)
    ours = [model.predict_ours(n, machine).total for n in CONTEXTS]
    assert ours == sorted(ours)
    assert ours[-1] > ours[0]


def test_full_attention_must_fit_beside_the_weights():
    assert model.predict_full(65536, model.RTX_4090) is not None
    assert model.predict_full(131072, model.RTX_4090) is None
    assert model.predict_full(131072, model.A100) is not None


def test_our_step_is_a_line_through_the_measured_table():
    page = (ROOT / "docs/method.md").read_text()
    # These are retriever, k, recall, planned and measured error; then KB read and us per step.
    rows = re.findall(r"\| projection \| \d+(?: \| [.\d]+){3} \| ([\d,]+) \| (\d+) \|", page)
    assert len(rows) >= 5
    read = [float(kb.replace(",", "")) * 1e3 for kb, _ in rows]
    line = statistics.linear_regression(read, [float(us) * 1e-6 for _, us in rows])
    assert line.intercept == pytest.approx(model.OUR_STEP_S, rel=0.1)
    assert 1 / line.slope == pytest.approx(model.OUR_BYTES_PER_S, rel=0.1)


def test_refuses_what_it_cannot_predict():
    with pytest.raises(ValueError, match="tokens is 640"):
        model.predict_ours(640, model.RTX_4090)
    with pytest.raises(ValueError, match="'HNSW'"):
        model.predict_paper("HNSW", 131072, model.RTX_4090)


def test_the_page_shows_what_the_model_says():
    page = (ROOT / "docs/gpu-model.md").read_text()
    assert model.check_table() in page
    assert model.prediction_table(model.RTX_4090) in page
    assert model.prediction_table(model.A100) in page
