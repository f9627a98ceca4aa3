"""Tiles of any grid, overlapping or not, as one array of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Raster:
    """Tiles as cells of an uneven grid, so that one array draws them.

    Attributes
    ----------
    x, y
        Edges of the columns [C + 1] and rows [R + 1] in level-0 pixels, rising.
    tile
        Position of the tile that covers a cell, int [R, C]; −1 where none does. Where tiles overlap the later one.
    """

    x: np.ndarray
    y: np.ndarray
    tile: np.ndarray

    def paint(self, values: np.ndarray, size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
        """Values [N] of the tiles as a picture, float64 [height, width]; NaN where there is no tile.

        Parameters
        ----------
        size
            (width, height) of the picture.
        scale
            Level-0 pixels a pixel of the picture (x, y).
        """
        across, down = (
            np.searchsorted(edges, (np.arange(length) + 0.5) * step, side="right") - 1
            for edges, length, step in zip((self.x, self.y), size, scale, strict=True)
        )
        rows, columns = self.tile.shape
        inside = ((down >= 0) & (down < rows))[:, None] & ((across >= 0) & (across < columns))[None, :]
        tile = self.tile[np.clip(down, 0, rows - 1)[:, None], np.clip(across, 0, columns - 1)[None, :]]
        tile = np.where(inside, tile, -1)
        return np.append(values, np.nan)[tile]


def raster(boxes: np.ndarray) -> Raster:
    """Lay tiles [N, 4] on the grid of all their edges; N is 1 or more."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    x, y = (np.unique(np.concatenate([low[:, axis], high[:, axis]])) for axis in (0, 1))
    tile = np.full((len(y) - 1, len(x) - 1), -1, np.int32)
    left, right = np.searchsorted(x, low[:, 0]), np.searchsorted(x, high[:, 0])
    top, bottom = np.searchsorted(y, low[:, 1]), np.searchsorted(y, high[:, 1])
    for index in range(len(boxes)):
        tile[top[index] : bottom[index], left[index] : right[index]] = index
    return Raster(x, y, tile)
