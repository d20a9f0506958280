"""The rotation that is fitted to queries at many positions, on rotations that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from keyseek.hf.rotary_fit import fit_rotation

POSITIONS = np.array([0, 1, 2, 5, 8, 32, 77, 128, 512, 1234, 4096, 32768, 131072, 300007, 524288])


def turned(layout, first, dim, frequencies, d=24, count=6, scale=lambda p: 1.0, noise=0.0):
    random = np.random.default_rng(3)
    base = random.standard_normal((count, d))
    out = np.repeat(base[None], len(POSITIONS), axis=0)
    second = dim // 2 if layout == "half-split" else 1
    step = 1 if layout == "half-split" else 2
    for j, frequency in enumerate(frequencies):
        x, y = first + j * step, first + j * step + second
        for i, p in enumerate(POSITIONS):
            c, s = math.cos(p * frequency), math.sin(p * frequency)
            out[i, :, x] = base[:, x] * c - base[:, y] * s
            out[i, :, y] = base[:, x] * s + base[:, y] * c
    scales = np.array([scale(p) for p in POSITIONS])
    return out * scales[:, None, None] * (1 + noise * random.standard_normal(out.shape))


@pytest.mark.parametrize("layout", ["half-split", "interleaved"])
@pytest.mark.parametrize(("first", "dim"), [(0, 24), (0, 8), (16, 8), (6, 12)])
@pytest.mark.parametrize("theta", [1e4, 1e7])
@pytest.mark.parametrize("noise", [2e-7, 2e-3])
def test_the_fit_finds_layout_place_and_speed(layout, first, dim, theta, noise):
    frequencies = theta ** (-np.arange(0, dim, 2) / dim)
    found = fit_rotation(
        POSITIONS, turned(layout, first, dim, frequencies, noise=noise), max(2e-6, 4 * noise)
    )
    assert (found.layout, found.first, found.dim) == (layout, first, dim)
    assert np.abs(found.frequencies - frequencies).max() <= found.precision


def test_the_fit_takes_pairs_that_stand_still():
    frequencies = [1.0, 0.1, 0.01, *[0.0] * 9]
    found = fit_rotation(POSITIONS, turned("half-split", 0, 24, frequencies), 2e-6)
    assert (found.layout, found.first, found.dim) == ("half-split", 0, 24)
    np.testing.assert_allclose(found.frequencies, frequencies, atol=1e-7)
    found = fit_rotation(POSITIONS, turned("half-split", 0, 24, [0.0] * 12), 2e-6)
    assert found.layout == "none"


def test_the_fit_leaves_a_scale_that_grows():
    def grow(p):
        return 1 + 0.1 * math.log1p(p // 4096)

    frequencies = 1e4 ** (-np.arange(0, 24, 2) / 24)
    found = fit_rotation(POSITIONS, turned("half-split", 0, 24, frequencies, scale=grow), 2e-6)
    np.testing.assert_allclose(found.frequencies, frequencies, rtol=1e-6)
    assert fit_rotation(POSITIONS, turned("none", 0, 0, [], scale=grow), 2e-6).layout == "none"


def test_the_fit_refuses_what_is_no_rotation():
    random = np.random.default_rng(1)
    other = random.standard_normal((len(POSITIONS), 6, 24))
    assert fit_rotation(POSITIONS, other, 2e-6) is None
    frequencies = 1e4 ** (-np.arange(0, 24, 2) / 24)
    right = turned("half-split", 0, 24, frequencies)
    for change in (lambda q: q + 0.01 * POSITIONS[:, None, None] / 524288, lambda q: q * np.nan):
        assert fit_rotation(POSITIONS, change(right), 2e-6) is None
    changing = right.copy()
    changing[POSITIONS > 4096] = turned("half-split", 0, 24, frequencies / 2)[POSITIONS > 4096]
    assert fit_rotation(POSITIONS, changing, 2e-6) is None
    assert fit_rotation(POSITIONS, np.zeros_like(right), 2e-6) is None
