"""Bags: all valid tiles of a patient's slides, or of one slide, by magnification."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histill.data.geometry import Geometry, read_geometry
from histill.features.store import count_valid, group_names, read_group, read_rows

CACHE_BYTES = 2 << 30
SAMPLE_ROWS = 32_768  # of all bags together


class _Cache:
    """The arrays used last, up to 2 GiB; always the very last one."""

    def __init__(self):
        self.kept: OrderedDict[tuple, np.ndarray | Geometry] = OrderedDict()
        self.bytes = 0

    def get(self, key: tuple) -> np.ndarray | Geometry | None:
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def put(self, key: tuple, value: np.ndarray | Geometry) -> None:
        self.kept[key] = value
        self.bytes += value.nbytes
        while self.bytes > CACHE_BYTES and len(self.kept) > 1:
            _, dropped = self.kept.popitem(last=False)
            self.bytes -= dropped.nbytes


class BagReader:
    """Reads bags from the feature stores, keeping the most recent ones in memory up to 2 GiB.

    Parameters
    ----------
    folder
        `results/features/<encoder>`.
    slides
        Bag -> ids of the slides whose tiles it holds; a bag is a patient, or a slide (`per_slide`).
    """

    def __init__(self, folder: str | Path, slides: dict[str, list[str]]):
        self.folder = Path(folder)
        self.slides = {bag: list(ids) for bag, ids in slides.items() if len(ids)}
        first = next((ids[0] for ids in self.slides.values()), None)
        self.levels = group_names(self.folder / f"{first}.zarr") if first else []
        self._cache = _Cache()
        self._counts: dict[tuple[str, str], int] = {}

    def per_slide(self) -> BagReader:
        """A reader of the same slides, each a bag of its own, named by its id; both share what they keep in memory."""
        reader = BagReader(self.folder, {slide: [slide] for ids in self.slides.values() for slide in ids})
        reader._cache, reader._counts = self._cache, self._counts
        return reader

    def read(self, bag: str) -> dict[str, np.ndarray]:
        """Magnification -> features [N, F] of the bag's valid tiles, in the store's precision."""
        return {level: self.read_level(bag, level) for level in self.levels}

    def read_level(self, bag: str, level: str) -> np.ndarray:
        """Features [N, F] of the bag's valid tiles at one magnification, in the store's precision."""
        key = (*self.slides[bag], level)
        x = self._cache.get(key)
        if x is None:
            groups = [read_group(store, level) for store in self._stores(bag)]
            x = np.concatenate([group.x[group.valid] for group in groups])
            self._cache.put(key, x)
        return x

    def geometry(self, bag: str) -> Geometry:
        """Where the bag's valid tiles lie, in the order of their features."""
        key = (*self.slides[bag], "geometry")
        found = self._cache.get(key)
        if found is None:
            found = read_geometry(self._stores(bag), self.levels)
            self._cache.put(key, found)
        return found

    def count(self, bag: str, level: str) -> int:
        """Number N of the bag's valid tiles at a magnification, without reading them."""
        return sum(self._slide_counts(bag, level))

    def rows(self, bag: str, level: str, rows: np.ndarray) -> np.ndarray:
        """Rows [K, F] of `read_level` by their numbers [K]; of what is not in memory no more than these is read."""
        kept = self._cache.get((*self.slides[bag], level))
        if kept is not None:
            return kept[rows]
        starts = np.cumsum([0, *self._slide_counts(bag, level)])
        slide = np.searchsorted(starts, rows, side="right") - 1
        parts = [
            read_rows(store, level, rows[slide == index] - starts[index])
            for index, store in enumerate(self._stores(bag))
        ]
        return np.concatenate(parts)[np.argsort(np.argsort(slide, kind="stable"))]

    def sample(self, bags: list[str], level: str, *, rows: int, seed: int) -> np.ndarray:
        """Random rows [M, F] of every bag, float32: what scaling is fitted on.

        Up to `rows` of each, and fewer of each where there are many bags: some 32,768 in all.
        """
        generator = np.random.default_rng(seed)
        rows = min(rows, max(1, SAMPLE_ROWS // max(1, len(bags))))
        parts = []
        for bag in bags:
            count = self.count(bag, level)
            if count > rows:
                x = self.rows(bag, level, generator.permutation(count)[:rows])
            else:
                x = self.read_level(bag, level)
            parts.append(x.astype(np.float32))
        return np.concatenate(parts)

    def mean(self, bag: str) -> np.ndarray:
        """Mean of the bag's tiles at every magnification, joined: float64 [sum of F]; NaN where none is known."""
        means = []
        for x in self.read(bag).values():
            x = x.astype(np.float64)
            known = np.isfinite(x)
            total = np.where(known, x, 0.0).sum(axis=0)
            means.append(np.divide(total, known.sum(axis=0), out=np.full(x.shape[1], np.nan), where=known.any(axis=0)))
        return np.concatenate(means)

    def _stores(self, bag: str) -> list[Path]:
        return [self.folder / f"{slide}.zarr" for slide in self.slides[bag]]

    def _slide_counts(self, bag: str, level: str) -> list[int]:
        for slide in self.slides[bag]:
            if (slide, level) not in self._counts:
                self._counts[slide, level] = count_valid(self.folder / f"{slide}.zarr", level)
        return [self._counts[slide, level] for slide in self.slides[bag]]


@dataclass(frozen=True)
class Instances:
    """What a network sees as one bag each: a patient's slides together, or every slide by itself.

    Attributes
    ----------
    bags
        Reader of them.
    names
        Of the bags [I]: patients, or slides.
    patient
        Number of the patient of each, int64 [I], rising.
    """

    bags: BagReader
    names: list[str]
    patient: np.ndarray

    @classmethod
    def of(cls, bags: BagReader, patients: list[str], slides: str) -> Instances:
        """Instances of some patients; `slides` is `training.slides` of the config, `bag` or `mean`."""
        if slides == "bag":
            return cls(bags, list(patients), np.arange(len(patients)))
        pairs = [(number, slide) for number, patient in enumerate(patients) for slide in bags.slides[patient]]
        return cls(bags.per_slide(), [slide for _, slide in pairs], np.array([number for number, _ in pairs], np.int64))

    @property
    def weights(self) -> np.ndarray:
        """What each counts in a mean over patients, float32 [I]: in all as much for every patient, 1 on average."""
        _, number, count = np.unique(self.patient, return_inverse=True, return_counts=True)
        return (len(self.patient) / max(1, len(count)) / count[number]).astype(np.float32)
