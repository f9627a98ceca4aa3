"""Where the tiles of a bag lie: their cells of the slide's grid, and which 20x tile lies in which 10x tile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histill.features.store import Group, read_group

COARSE, FINE = "10x", "20x"
_STRAY = 0.05  # share of spacings that may be smaller than the step: tools that start a grid in each piece of tissue


@dataclass(frozen=True)
class Geometry:
    """Of a bag's tiles, in the order of its features.

    Attributes
    ----------
    cells
        Magnification -> (slide number, column, row) int32 [N, 3], counted from 0 at the slide's first tile; −1 in all
        three where a slide has no usable coordinates.
    parents
        Row of the 10x tile that each 20x tile lies in, int32 [N20]; −1 where it is not known. None where there are
        not both magnifications.
    """

    cells: dict[str, np.ndarray]
    parents: np.ndarray | None

    @property
    def nbytes(self) -> int:
        arrays = [*self.cells.values(), *([] if self.parents is None else [self.parents])]
        return sum(array.nbytes for array in arrays)


def read_geometry(stores: list[Path], levels: list[str]) -> Geometry:
    """Geometry of a bag: the valid tiles of some slides' stores, one after the other."""
    cells: dict[str, list[np.ndarray]] = {level: [] for level in levels}
    parents, coarse_tiles = [], 0
    for number, store in enumerate(stores):
        groups = {level: read_group(store, level, features=False) for level in levels}
        for level, own in _slide_cells(groups).items():
            known = own[:, :1] >= 0
            numbered = np.column_stack([np.where(known, number, -1), own])
            cells[level].append(numbered[groups[level].valid].astype(np.int32))
        if COARSE in groups and FINE in groups:
            place = np.where(groups[COARSE].valid, np.cumsum(groups[COARSE].valid) - 1 + coarse_tiles, -1)
            parent = _parents(groups)[groups[FINE].valid]
            # The last place stands for −1.
            parents.append(np.append(place, -1)[parent].astype(np.int32))
            coarse_tiles += int(groups[COARSE].valid.sum())
    return Geometry(
        {level: np.concatenate(parts) for level, parts in cells.items()},
        np.concatenate(parents) if parents else None,
    )


def tile_step(origins: np.ndarray) -> np.ndarray:
    """Distance (x, y) from tile to tile of a grid, in pixels, float64 [2].

    Per axis the mean of the smallest spacings between neighbours of one row (or column); overlapping tiles are closer
    than they are wide. Spacings differ by a pixel where the step is no whole number, and few may be stray.

    Parameters
    ----------
    origins
        Top-left corners [N, 2].
    """
    steps = np.array([_axis_step(origins[:, axis], origins[:, 1 - axis]) for axis in (0, 1)])
    if np.isnan(steps).all():  # no two tiles share a row or a column
        gaps = np.concatenate([np.diff(np.unique(origins[:, axis])) for axis in (0, 1)])
        return np.full(2, gaps.min() if len(gaps) else 1.0)
    return np.where(np.isnan(steps), steps[::-1], steps)


def _axis_step(along: np.ndarray, across: np.ndarray) -> float:
    order = np.lexsort((along, across))
    spacing = np.diff(along[order])[np.diff(across[order]) == 0]
    spacing = spacing[spacing > 0]
    if not len(spacing):
        return np.nan
    smallest = np.quantile(spacing, _STRAY, method="higher")
    return float(spacing[np.abs(spacing - smallest) <= np.maximum(1.5, 0.01 * smallest)].mean())


def _slide_cells(groups: dict[str, Group]) -> dict[str, np.ndarray]:
    """Magnification -> (column, row) int64 [N, 2] of every tile of a slide, −1 where they cannot be told."""
    cells = {level: _cells(level, np.asarray(group.spatial)) for level, group in groups.items()}
    if COARSE not in groups or FINE not in groups:
        return cells
    # Of tiles that overlap, the 20x grid is uneven: each 10x tile brings four of its own.
    parent = _parents(groups)
    inside = (parent >= 0) & (cells[COARSE][parent, 0] >= 0) if len(cells[COARSE]) else np.zeros(len(parent), bool)
    above = parent[inside]
    quarter = groups[FINE].spatial[inside] > groups[COARSE].spatial[above]
    cells[FINE][inside] = 2 * cells[COARSE][above] + quarter
    return cells


def _cells(level: str, origins: np.ndarray) -> np.ndarray:
    placed = len(origins) and (len(origins) > 1 or origins.min() >= 0) and level in (COARSE, FINE)
    if not placed or (len(origins) > 1 and (origins == origins[0]).all()):
        return np.full((len(origins), 2), -1, np.int64)
    return np.floor((origins - origins.min(axis=0)) / tile_step(origins) + 0.5).astype(np.int64)


def _parents(groups: dict[str, Group]) -> np.ndarray:
    """Row of the 10x group of each 20x row [N20], −1 where the store does not say."""
    fine = groups[FINE]
    return np.asarray(fine.obs.get("parent", np.full(len(fine.spatial), -1)), dtype=np.int64)
