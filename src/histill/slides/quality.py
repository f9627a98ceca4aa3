"""Quality flags of tiles. Colour and brightness for gross artefacts, sharpness for strong defocus; no weights.

What they are and are not: `pen` is blue, green or red marker; `black` is unlit border, black marker or black pigment,
which look the same; `white` is empty glass or lumen; `blur` is defocus as of a Gaussian of 3 µm and more. Less blur,
folds, bubbles and compression are not detected.
"""

from __future__ import annotations

import cv2
import numpy as np

from histill.slides import colour
from histill.slides.grid import Coverage, Grid
from histill.slides.readers import SlideReader

FLAGS = ("pen", "blur", "black", "white")
SHARE = {"pen": 0.10, "black": 0.25, "white": 0.90}  # of the tile's area
BLUR_MPP = 2.0  # µm per pixel at which sharpness is judged
# Laplacian energy over variance of the optical density at 2 µm per pixel. Sharp H&E has 1.3 to 9, after a Gaussian of
# 2 µm 0.07 to 0.9, of 3 µm 0.02 to 0.32 (124 tiles of 4 slides and 5 fields).
BLUR_RATIO = 0.3
MIN_CONTRAST = 0.006  # standard deviation of density below which there is nothing to be sharp
_BLOCK = 512  # pixels at BLUR_MPP read at once


def colour_flags(overview: np.ndarray, dimensions: tuple[int, int], boxes: np.ndarray) -> dict[str, np.ndarray]:
    """Flags `pen`, `black` and `white` from the slide's overview.

    Parameters
    ----------
    overview
        uint8 RGB [H, W, 3] of the whole slide.
    dimensions
        (width, height) of the slide in level-0 pixels.
    boxes
        Tiles [N, 4]: x, y, width, height in level-0 pixels.

    Returns
    -------
    Flag to bool [N].
    """
    density = colour.optical_density(overview, colour.glass_colour(overview))
    masks = {
        "pen": colour.coloured_ink(density),
        "black": colour.black(overview, density),
        "white": colour.glass(density),
    }
    return {flag: Coverage(mask, dimensions).of(boxes) >= SHARE[flag] for flag, mask in masks.items()}


def blur_flags(reader: SlideReader, mpp: tuple[float, float], grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Flag `blur` of 10x tiles and of their children; the slide is read block by block where there are tiles.

    A slide scanned coarser than 2 µm per pixel is not judged: nothing is flagged.

    Returns
    -------
    bool [N] and bool [4 N].
    """
    parents, children = np.zeros(len(grid.parents), bool), np.zeros(len(grid.children), bool)
    if max(mpp) > BLUR_MPP or not len(grid.parents):
        return parents, children
    side = _BLOCK * BLUR_MPP / np.array(mpp)
    block = (grid.parents[:, :2] // side).astype(np.int64)
    _, member = np.unique(block, axis=0, return_inverse=True)
    for rows in np.split(np.argsort(member, kind="stable"), np.flatnonzero(np.diff(np.sort(member))) + 1):
        part = grid.take(rows)
        boxes = np.concatenate([part.parents, part.children])
        flags = _blurred(reader, mpp, boxes)
        parents[rows] = flags[: len(rows)]
        children.reshape(-1, 4)[rows] = flags[len(rows) :].reshape(-1, 4)
    return parents, children


def sharpness(density: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Laplacian energy over variance, and standard deviation, of boxes of a density image at 2 µm per pixel.

    Parameters
    ----------
    density
        float32 [H, W].
    edges
        int [N, 4]: left, top, right, bottom in its pixels.

    Returns
    -------
    float64 [N] each.
    """
    laplacian = cv2.Laplacian(density, cv2.CV_32F)
    left, top, right, bottom = edges.T
    area = (right - left) * (bottom - top)

    def mean(values: np.ndarray) -> np.ndarray:
        total = cv2.integral(values, sdepth=cv2.CV_64F)
        return (total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]) / area

    variance = np.maximum(mean(density * density) - mean(density) ** 2, 1e-12)
    return mean(laplacian * laplacian) / variance, np.sqrt(variance)


def _blurred(reader: SlideReader, mpp: tuple[float, float], boxes: np.ndarray) -> np.ndarray:
    x0, y0 = boxes[:, :2].min(0)
    x1, y1 = (boxes[:, :2] + boxes[:, 2:]).max(0)
    out = max(1, round((x1 - x0) * mpp[0] / BLUR_MPP)), max(1, round((y1 - y0) * mpp[1] / BLUR_MPP))
    rgb = reader.read_region(int(x0), int(y0), int(x1 - x0), int(y1 - y0), *out)
    glass = np.full(3, colour.DEFAULT_GLASS, np.float32)  # a block may hold none; the ratio does not depend on it
    density = colour.optical_density(rgb, glass).mean(2)
    scale = np.array(out) / np.array([x1 - x0, y1 - y0])
    low = np.floor((boxes[:, :2] - [x0, y0]) * scale).astype(np.int64)
    high = np.maximum(np.rint((boxes[:, :2] + boxes[:, 2:] - [x0, y0]) * scale).astype(np.int64), low + 1)
    ratio, contrast = sharpness(density, np.concatenate([low, np.minimum(high, out)], axis=1))
    return (ratio < BLUR_RATIO) & (contrast > MIN_CONTRAST)
