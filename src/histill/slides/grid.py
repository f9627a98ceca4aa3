"""The tile grid: 10x tiles and their four 20x children, exact to the pixel at any native resolution.

One global grid a slide, anchored at (0, 0). Every edge is `round(k * 0.5 / mpp)` for a whole number k of 20x pixels, so
edges that coincide on the target grid coincide on the slide, and nothing accumulates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from histill.magnifications import MAGNIFICATIONS

MPP_20X = MAGNIFICATIONS["20x"]
_NOTHING = 1e-6


@dataclass(frozen=True)
class Grid:
    """10x tiles and their children; row 4 i + j of `children` is child j of 10x tile i.

    Attributes
    ----------
    parents
        int64 [N, 4]: x, y, width, height in level-0 pixels, row-major (top to bottom, left to right).
    children
        int64 [4 N, 4]: top left, top right, bottom left, bottom right of each parent.
    """

    parents: np.ndarray
    children: np.ndarray

    def take(self, rows: np.ndarray) -> Grid:
        """The 10x tiles of the given rows with their children."""
        return Grid(self.parents[rows], self.children.reshape(-1, 4, 4)[rows].reshape(-1, 4))


def step(size: int, overlap: float, mpp: float = 0.5) -> int:
    """Step of 10x tiles in 10x pixels: `size * (1 - overlap)`, rounded, and more than half a tile.

    At half a tile the children of neighbours would coincide; one level-0 pixel more (of `mpp` µm) keeps them apart.
    """
    if not 0 <= overlap < 0.5:
        raise ValueError(f"overlap {overlap} is outside 0 (included) to 0.5 (excluded)")
    return max(round(size * (1 - overlap)), size // 2 + math.ceil(mpp / MAGNIFICATIONS["10x"]))


def make_grid(dimensions: tuple[int, int], mpp: tuple[float, float], size: int, overlap: float = 0.0) -> Grid:
    """Every full tile inside the slide.

    Parameters
    ----------
    dimensions
        (width, height) in level-0 pixels.
    mpp
        (x, y) of level 0.
    size
        Side of a tile in its own pixels, even, the same at 10x and 20x.
    overlap
        Share of its side by which a 10x tile overlaps the next one; 0 to below one half.
    """
    if size < 2 or size % 2:
        raise ValueError(f"tile size {size} is not an even number of pixels")
    stride = 2 * step(size, overlap, max(mpp))  # in 20x pixels
    x_edges = _edges(dimensions[0], mpp[0], size, stride)
    y_edges = _edges(dimensions[1], mpp[1], size, stride)
    rows, columns = np.meshgrid(np.arange(len(y_edges)), np.arange(len(x_edges)), indexing="ij")
    x, y = x_edges[columns.ravel()], y_edges[rows.ravel()]  # [N, 3]: left, middle, right; top, middle, bottom
    parents = _boxes(x[:, 0], y[:, 0], x[:, 2], y[:, 2])
    quarters = [_boxes(x[:, i], y[:, j], x[:, i + 1], y[:, j + 1]) for j in (0, 1) for i in (0, 1)]
    return Grid(parents, np.stack(quarters, axis=1).reshape(-1, 4))


def _edges(length: int, mpp: float, size: int, stride: int) -> np.ndarray:
    """Left, middle and right edge of every full tile along one axis, int64 [n, 3]."""
    count = max(0, int((length * mpp / MPP_20X - 2 * size) // stride) + 2)
    starts = stride * np.arange(count)[:, None]
    edges = np.rint((starts + np.array([0, size, 2 * size])) * (MPP_20X / mpp)).astype(np.int64)
    return edges[edges[:, 2] <= length]


def _boxes(left: np.ndarray, top: np.ndarray, right: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.stack([left, top, right - left, bottom - top], axis=1)


class Coverage:
    """Share of any box that a mask covers, from the mask's integral image; box edges may fall between its pixels.

    Parameters
    ----------
    mask
        bool or uint8 [H, W] over the whole slide.
    dimensions
        (width, height) of the slide in level-0 pixels.
    full
        Value of the mask's pixels that are wholly covered.
    """

    def __init__(self, mask: np.ndarray, dimensions: tuple[int, int], full: int = 1):
        import cv2

        # Whole numbers of 4 bytes: half the memory of floats, and exact.
        depth = cv2.CV_32S if mask.size * full < 1 << 31 else cv2.CV_64F
        self.integral = cv2.integral(mask.view(np.uint8), sdepth=depth)
        self.full = full
        self.scale = mask.shape[1] / dimensions[0], mask.shape[0] / dimensions[1]

    def of(self, boxes: np.ndarray) -> np.ndarray:
        """Covered share of boxes [N, 4] (x, y, width, height in level-0 pixels), float32 [N]."""
        x0, x1 = boxes[:, 0] * self.scale[0], (boxes[:, 0] + boxes[:, 2]) * self.scale[0]
        y0, y1 = boxes[:, 1] * self.scale[1], (boxes[:, 1] + boxes[:, 3]) * self.scale[1]
        total = self._at(x1, y1) - self._at(x0, y1) - self._at(x1, y0) + self._at(x0, y0)
        share = np.clip(total / ((x1 - x0) * (y1 - y0) * self.full), 0, 1).astype(np.float32)
        share[share < _NOTHING] = 0  # the difference of large sums: where nothing is covered, 1e-15 may be left
        return share

    def _at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The integral up to (x, y), exact between pixels since the mask is constant within each."""
        height, width = self.integral.shape
        column, row = np.clip(x.astype(np.int64), 0, width - 2), np.clip(y.astype(np.int64), 0, height - 2)
        right, down = x - column, y - row
        upper = self.integral[row, column] * (1 - right) + self.integral[row, column + 1] * right
        lower = self.integral[row + 1, column] * (1 - right) + self.integral[row + 1, column + 1] * right
        return upper * (1 - down) + lower * down
