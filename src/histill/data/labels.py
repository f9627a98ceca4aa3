"""Labels as tensors want them; what is fitted is fitted on the training patients of a fold."""

from __future__ import annotations

import numpy as np


def survival_edges(time: np.ndarray, event: np.ndarray, bins: int) -> np.ndarray:
    """Inner edges [bins − 1] of discrete time: quantiles of the training patients' event times.

    Fewer edges come back when event times tie so much that quantiles coincide.
    """
    times = np.asarray(time, dtype=np.float64)
    observed = times[np.asarray(event) == 1]
    source = observed if len(observed) >= bins else times
    return np.unique(np.quantile(source, np.arange(1, bins) / bins))


def survival_bin(time: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Interval 0..len(edges) of each time; an edge belongs to the interval it opens."""
    return np.searchsorted(edges, np.asarray(time, dtype=np.float64), side="right")


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Balanced weights [classes], n / (classes · count); a class absent from training gets weight 0."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    return np.where(counts > 0, len(labels) / (classes * np.maximum(counts, 1)), 0.0)
