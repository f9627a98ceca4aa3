"""Bags: all valid tiles of a patient's slides, by magnification."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np

from histill.features.store import group_names, read_group

CACHE_BYTES = 2 << 30


class BagReader:
    """Reads bags from the feature stores, keeping the most recent ones in memory up to 2 GiB.

    Parameters
    ----------
    folder
        `results/features/<encoder>`.
    slides
        Patient -> ids of the usable slides.
    """

    def __init__(self, folder: str | Path, slides: dict[str, list[str]]):
        self.folder = Path(folder)
        self.slides = {patient: list(ids) for patient, ids in slides.items() if len(ids)}
        first = next((ids[0] for ids in self.slides.values()), None)
        self.levels = group_names(self.folder / f"{first}.zarr") if first else []
        self._cache: OrderedDict[str, dict[str, np.ndarray]] = OrderedDict()
        self._bytes = 0

    def read(self, patient: str) -> dict[str, np.ndarray]:
        """Magnification -> features [N, F] of the patient's valid tiles, in the store's precision."""
        if patient in self._cache:
            self._cache.move_to_end(patient)
            return self._cache[patient]
        bag = {}
        for level in self.levels:
            groups = [read_group(self.folder / f"{slide}.zarr", level) for slide in self.slides[patient]]
            bag[level] = np.concatenate([group.x[group.valid] for group in groups])
        self._cache[patient] = bag
        self._bytes += sum(x.nbytes for x in bag.values())
        while self._bytes > CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._bytes -= sum(x.nbytes for x in dropped.values())
        return bag

    def sample(self, patients: list[str], level: str, *, rows: int, seed: int) -> np.ndarray:
        """Up to `rows` random rows of every patient [M, F], float32: what scaling is fitted on."""
        generator = np.random.default_rng(seed)
        parts = []
        for patient in patients:
            x = self.read(patient)[level]
            chosen = generator.permutation(len(x))[:rows] if len(x) > rows else slice(None)
            parts.append(x[chosen].astype(np.float32))
        return np.concatenate(parts)

    def mean(self, patient: str) -> np.ndarray:
        """Mean of the patient's tiles at every magnification, joined: float64 [sum of F]; NaN where none is known."""
        means = []
        for x in self.read(patient).values():
            x = x.astype(np.float64)
            known = np.isfinite(x)
            total = np.where(known, x, 0.0).sum(axis=0)
            means.append(np.divide(total, known.sum(axis=0), out=np.full(x.shape[1], np.nan), where=known.any(axis=0)))
        return np.concatenate(means)
