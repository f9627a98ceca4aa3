"""Bags: all valid tiles of a patient's slides, or of one slide, by magnification."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from histill.data.geometry import COARSE, FINE, Geometry, read_geometry
from histill.features.store import counts, read_group, read_rows

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

    A magnification that a store lacks has no tiles in its slide: zero rows, as if none were valid.

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
        self._cache = _Cache()
        self._groups: dict[str, dict[str, dict[str, Any]]] = {}

    @cached_property
    def features(self) -> dict[str, int]:
        """Magnification -> number F of features: of all stores together, or what a model reads (`at`).

        The record of every store is read for it once.
        """
        groups = [self._slide_groups(slide) for ids in self.slides.values() for slide in ids]
        known = {level: group["dim"] for own in groups for level, group in own.items()}
        return dict(sorted(known.items()))

    @property
    def levels(self) -> list[str]:
        """Magnifications, sorted."""
        return list(self.features)

    def at(self, features: dict[str, int]) -> BagReader:
        """A reader of the same bags at the magnifications of a model: name -> number of features."""
        reader = self._like(self.slides)
        reader.features = dict(sorted(features.items()))
        return reader

    def per_slide(self) -> BagReader:
        """A reader of the same slides, each a bag of its own, named by its id."""
        reader = self._like({slide: [slide] for ids in self.slides.values() for slide in ids})
        reader.features = self.features
        return reader

    def _like(self, slides: dict[str, list[str]]) -> BagReader:
        """A reader of other bags that shares what is kept in memory."""
        reader = BagReader(self.folder, slides)
        reader._cache, reader._groups = self._cache, self._groups
        return reader

    def read(self, bag: str) -> dict[str, np.ndarray]:
        """Magnification -> features [N, F] of the bag's valid tiles, in the store's precision."""
        return {level: self.read_level(bag, level) for level in self.levels}

    def read_level(self, bag: str, level: str) -> np.ndarray:
        """Features [N, F] of the bag's valid tiles at one magnification, in the store's precision."""
        key = (*self.slides[bag], level)
        x = self._cache.get(key)
        if x is None:
            groups = [read_group(self._store(slide), level) for slide in self.slides_with(bag, level)]
            x = np.concatenate([self._nothing(level), *(group.x[group.valid] for group in groups)])
            self._cache.put(key, x)
        return x

    def geometry(self, bag: str) -> Geometry:
        """Where the bag's valid tiles lie, in the order of their features."""
        key = (*self.slides[bag], tuple(self.levels), "geometry")
        found = self._cache.get(key)
        if found is None:
            slides = [(slide, self._slide_groups(slide)) for slide in self.slides[bag]]
            parts = [read_geometry([self._store(slide)], [x for x in self.levels if x in own]) for slide, own in slides]
            found = _joined(parts, self.levels)
            self._cache.put(key, found)
        return found

    def count(self, bag: str, level: str) -> int:
        """Number N of the bag's valid tiles at a magnification, without reading them."""
        return sum(self._slide_counts(bag, level))

    def has_tiles(self, bag: str) -> bool:
        """Whether the bag has a valid tile at any magnification."""
        return any(self.count(bag, level) for level in self.levels)

    def slides_with(self, bag: str, level: str) -> list[str]:
        """Ids of the bag's slides whose store has a magnification, in the order of their tiles."""
        return [slide for slide in self.slides[bag] if level in self._slide_groups(slide)]

    def rows(self, bag: str, level: str, rows: np.ndarray) -> np.ndarray:
        """Rows [K, F] of `read_level` by their numbers [K]; of what is not in memory no more than these is read."""
        kept = self._cache.get((*self.slides[bag], level))
        if kept is not None:
            return kept[rows]
        starts = np.cumsum([0, *self._slide_counts(bag, level)])
        slide = np.searchsorted(starts, rows, side="right") - 1
        parts = [
            read_rows(self._store(self.slides[bag][index]), level, rows[slide == index] - starts[index])
            for index in np.unique(slide)
        ]
        return np.concatenate([self._nothing(level), *parts])[np.argsort(np.argsort(slide, kind="stable"))]

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

    def _store(self, slide: str) -> Path:
        return self.folder / f"{slide}.zarr"

    def _slide_groups(self, slide: str) -> dict[str, dict[str, Any]]:
        """Groups of a slide's store (`histill.features.store.counts`)."""
        if slide not in self._groups:
            self._groups[slide] = counts(self._store(slide))
        return self._groups[slide]

    def _slide_counts(self, bag: str, level: str) -> list[int]:
        groups = [self._slide_groups(slide) for slide in self.slides[bag]]
        return [own[level]["valid"] if level in own else 0 for own in groups]

    def _nothing(self, level: str) -> np.ndarray:
        """Zero rows of a magnification, of the type that gives way to any other."""
        return np.zeros((0, self.features[level]), np.float16)


def _joined(slides: list[Geometry], levels: list[str]) -> Geometry:
    """Geometry of a bag's slides, one after the other; a magnification that a slide lacks has no tiles in it."""
    none = np.zeros((0, 3), np.int32)
    cells: dict[str, list[np.ndarray]] = {level: [none] for level in levels}
    parents, coarse_tiles = [np.zeros(0, np.int32)], 0
    for number, slide in enumerate(slides):
        for level, own in slide.cells.items():
            cells[level].append(np.where(own >= 0, own + np.array([number, 0, 0], np.int32), own))
        unknown = np.full(len(slide.cells.get(FINE, none)), -1, np.int32)
        own = unknown if slide.parents is None else slide.parents
        parents.append(np.where(own >= 0, own + np.int32(coarse_tiles), own))
        coarse_tiles += len(slide.cells.get(COARSE, none))
    both = COARSE in levels and FINE in levels
    return Geometry(
        {level: np.concatenate(parts) for level, parts in cells.items()}, np.concatenate(parents) if both else None
    )


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
