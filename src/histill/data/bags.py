"""Bags: all valid tiles of a patient's slides, by magnification."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np

from histill.features.store import count_valid, group_names, read_group, read_rows

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
        self._cache: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._counts: dict[tuple[str, str], list[int]] = {}

    def read(self, patient: str) -> dict[str, np.ndarray]:
        """Magnification -> features [N, F] of the patient's valid tiles, in the store's precision."""
        return {level: self.read_level(patient, level) for level in self.levels}

    def read_level(self, patient: str, level: str) -> np.ndarray:
        """Features [N, F] of the patient's valid tiles at one magnification, in the store's precision."""
        key = patient, level
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        groups = [read_group(store, level) for store in self._stores(patient)]
        bag = np.concatenate([group.x[group.valid] for group in groups])
        self._cache[key] = bag
        self._bytes += bag.nbytes
        while self._bytes > CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._bytes -= dropped.nbytes
        return bag

    def count(self, patient: str, level: str) -> int:
        """Number N of the patient's valid tiles at a magnification, without reading them."""
        return sum(self._slide_counts(patient, level))

    def rows(self, patient: str, level: str, rows: np.ndarray) -> np.ndarray:
        """Rows [K, F] of `read_level` by their numbers [K]; of what is not in memory no more than these is read."""
        if (patient, level) in self._cache:
            return self.read_level(patient, level)[rows]
        starts = np.cumsum([0, *self._slide_counts(patient, level)])
        slide = np.searchsorted(starts, rows, side="right") - 1
        parts = [
            read_rows(store, level, rows[slide == index] - starts[index])
            for index, store in enumerate(self._stores(patient))
        ]
        return np.concatenate(parts)[np.argsort(np.argsort(slide, kind="stable"))]

    def sample(self, patients: list[str], level: str, *, rows: int, seed: int) -> np.ndarray:
        """Up to `rows` random rows of every patient [M, F], float32: what scaling is fitted on."""
        generator = np.random.default_rng(seed)
        parts = []
        for patient in patients:
            count = self.count(patient, level)
            if count > rows:
                x = self.rows(patient, level, generator.permutation(count)[:rows])
            else:
                x = self.read_level(patient, level)
            parts.append(x.astype(np.float32))
        return np.concatenate(parts)

    def _stores(self, patient: str) -> list[Path]:
        return [self.folder / f"{slide}.zarr" for slide in self.slides[patient]]

    def _slide_counts(self, patient: str, level: str) -> list[int]:
        key = patient, level
        if key not in self._counts:
            self._counts[key] = [count_valid(store, level) for store in self._stores(patient)]
        return self._counts[key]

    def mean(self, patient: str) -> np.ndarray:
        """Mean of the patient's tiles at every magnification, joined: float64 [sum of F]; NaN where none is known."""
        means = []
        for x in self.read(patient).values():
            x = x.astype(np.float64)
            known = np.isfinite(x)
            total = np.where(known, x, 0.0).sum(axis=0)
            means.append(np.divide(total, known.sum(axis=0), out=np.full(x.shape[1], np.nan), where=known.any(axis=0)))
        return np.concatenate(means)
