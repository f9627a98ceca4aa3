"""Bootstrap over patients: resamples as counts, percentile intervals, p values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def resample(
    size: int, draws: int, rng: np.random.Generator, defined: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, int]:
    """Bootstrap resamples of `size` patients as counts.

    Parameters
    ----------
    defined
        Takes counts [B, N] and tells [B] whether a resample can be scored (holds a comparable pair, two classes).
        It must hold for the patients themselves. Resamples for which it does not are drawn again.

    Returns
    -------
    Counts [draws, size] as float64, and how many resamples were drawn again.
    """
    if not defined(np.ones((1, size)))[0]:
        raise ValueError("no resample of these patients can be scored: the patients themselves cannot")
    counts = _counts(size, draws, rng)
    redrawn = 0
    while (bad := np.flatnonzero(~defined(counts))).size:
        counts[bad] = _counts(size, bad.size, rng)
        redrawn += bad.size
    return counts, redrawn


def _counts(size: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    return rng.multinomial(size, np.full(size, 1.0 / size), size=draws).astype(np.float64)


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap values [B]: its bounds leave (1 − confidence) / 2 outside at each end."""
    outside = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [outside, 1.0 - outside])
    return float(low), float(high)


def two_sided_p(values: np.ndarray) -> float:
    """Two-sided p value that 0 is the truth of a statistic with bootstrap values [B].

    It is 1 − the confidence of the widest percentile interval that leaves 0 out: twice the smaller share of resamples
    on one side of 0, with one added to both counts so that it is never 0 (Davison & Hinkley 1997, §4.4, §5.4).
    """
    below, above = (values <= 0).sum() + 1, (values >= 0).sum() + 1
    return float(min(1.0, 2.0 * min(below, above) / (len(values) + 1)))
