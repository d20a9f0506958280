"""Which rotation explains a layer's queries at several positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# A scale that grows with the position (attention temperature) is no rotation and is left out; by
# more than this much it would be something else.
_LARGEST_SCALE = 4.0
# float32 rounds an angle of p radians by up to half of this times p.
_ANGLE_ROUNDING = 2.0**-23


@dataclass(frozen=True)
class Rotation:
    """layout: "none", "half-split" or "interleaved", of the elements [first, first + dim);
    frequencies: radians per position of each pair, and how far off they may be (precision)."""

    layout: str
    first: int = 0
    dim: int = 0
    frequencies: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    precision: float = 0.0


def fit_rotation(
    positions: NDArray[np.int64], queries: NDArray[np.float64], noise: float
) -> Rotation | None:
    """The rotation that takes queries[0], at position 0, to all the others, or None.

    positions: [p], increasing from 0. queries: [p, m, d], the same m queries at each. noise: of an
    element, in relation to the queries' size. Frequencies are measured at the powers of two, where
    float32 rounds no angle; the other positions are there to prove the fit wrong.
    """
    sizes = np.sqrt((queries**2).mean(axis=(1, 2)))
    if not np.isfinite(queries).all() or sizes.min() == 0:
        return None
    scales = sizes / sizes[0]
    if scales.max() > _LARGEST_SCALE or scales.min() < 1 / _LARGEST_SCALE:
        return None
    queries = queries / sizes[:, None, None]
    moved = np.sqrt(((queries - queries[0]) ** 2).mean(axis=1)).max(axis=0)
    turning = np.flatnonzero(moved > 4 * noise)
    if turning.size == 0:
        return Rotation("none")
    for layout, first, dim in _candidates(turning, queries.shape[2]):
        pairs = _pairs(queries[:, :, first : first + dim], layout)
        frequencies, precision = _frequencies(positions, pairs, noise)
        if _explains(positions, pairs, frequencies, noise):
            return Rotation(layout, first, dim, frequencies, precision)
    return None


def _candidates(turning: NDArray[np.int64], d: int) -> Iterator[tuple[str, int, int]]:
    """Layouts in which just these elements could turn, the narrowest first."""
    first, end = int(turning[0]), int(turning[-1]) + 1
    even = first - first % 2
    tried = [("half-split", first, end - first), ("interleaved", even, end - even + end % 2)]
    # Slow pairs stand still, and all but the first may (frequencies of zero): then the second
    # elements of the pairs begin a run of their own.
    starts = turning[1:][np.diff(turning) > 1].tolist()
    tried += [("half-split", first, 2 * (start - first)) for start in starts]
    tried += [("half-split", 0, d)]
    for layout, begin, dim in tried:
        if dim % 2 == 0 and end <= begin + dim <= d:
            yield layout, begin, dim


def _pairs(elements: NDArray[np.float64], layout: str) -> NDArray[np.complex128]:
    """[p, m, r] -> [p, m, r / 2]: what turns together, as complex numbers."""
    if layout == "interleaved":
        return elements[..., 0::2] + 1j * elements[..., 1::2]
    half = elements.shape[-1] // 2
    return elements[..., :half] + 1j * elements[..., half:]


def _frequencies(
    positions: NDArray[np.int64], pairs: NDArray[np.complex128], noise: float
) -> tuple[NDArray[np.float64], float]:
    """Radians per position of each pair, and how far off they may be: roughly at position 1, then
    better at each power of two, where the rough value tells how many whole turns there were."""
    turned = (pairs * pairs[0].conj()).sum(axis=1)
    frequencies = np.zeros(pairs.shape[2])
    last = 1
    for at in np.flatnonzero((positions > 0) & (positions & (positions - 1) == 0)):
        last = int(positions[at])
        rest = turned[at] * np.exp(-1j * frequencies * last)
        frequencies = frequencies + np.angle(rest) / last
    precision = 8 * noise / last
    frequencies[np.abs(frequencies) <= precision] = 0.0
    # Models hold frequencies as float32: where that is what was measured, it is what is there.
    single = frequencies.astype(np.float32).astype(np.float64)
    return np.where(np.abs(single - frequencies) <= precision, single, frequencies), precision


def _explains(
    positions: NDArray[np.int64],
    pairs: NDArray[np.complex128],
    frequencies: NDArray[np.float64],
    noise: float,
) -> bool:
    """Whether turning the pairs of position 0 gives those of all other positions, pair by pair."""
    angles = positions[:, None] * frequencies
    apart = np.abs(pairs - pairs[0] * np.exp(1j * angles)[:, None])
    size = np.sqrt((np.abs(pairs[0]) ** 2).mean(axis=0))
    allowed = 8 * noise * np.maximum(size, 1.0) + _ANGLE_ROUNDING * np.abs(angles) * size
    return bool((np.sqrt((apart**2).mean(axis=1)) <= allowed).all())
