"""What is only seen at 2 µm per pixel: focus, blood, and the pixels that the stain statistics are taken from.

The slide is read once, block by block, where there are tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from histill.slides import colour
from histill.slides.grid import Grid
from histill.slides.ink import red_dye
from histill.slides.readers import SlideReader

MPP = 2.0  # µm per pixel of this pass
# Sharpness is Laplacian energy over variance of the tissue's optical density. Of 190 fields of lung, whole or with 30 %
# left on glass: sharp 2.3 and more, after a Gaussian of 0.5 µm (a soft scanner) 1.7 and more, of 2 µm 0.15 to 0.9.
BLUR = 0.8
TISSUE = 0.06  # density within 10 µm; glass has 0.02
MIN_TISSUE = 0.05  # share of a tile
BLUR_CONTRAST = 0.025  # standard deviation of density; 0.036 and more in sharp tissue, less in smooth mucus
STRONG_BLUR = 0.3  # after 3 µm and more; then contrast may be lost as well
STRONG_BLUR_CONTRAST = 0.01
GRANULAR = 0.15  # standard deviation over mean of the blue density within 10 µm: erythrocytes; ink is smooth
SAMPLE = 24  # pixels a side that are taken of each 10x tile
_BLOCK = 512  # pixels read at once


@dataclass
class Detail:
    """Measures of N 10x tiles and, where the shape is [5 N], of their children after them.

    Attributes
    ----------
    blur
        bool [5 N].
    blood
        Share of the tile's area that looks like erythrocytes or red ink, float32 [5 N].
    granular
        Whether that area has the grain of erythrocytes, bool [5 N].
    sharpness
        float32 [N]; NaN where there is nothing to be sharp or the tile was not judged.
    pixels
        uint8 RGB [N, 576, 3], on a regular lattice in each 10x tile.
    judged
        bool [N].
    """

    blur: np.ndarray
    blood: np.ndarray
    granular: np.ndarray
    sharpness: np.ndarray
    pixels: np.ndarray
    judged: np.ndarray

    @classmethod
    def of(cls, number: int) -> Detail:
        """Nothing judged."""
        return cls(
            blur=np.zeros(5 * number, bool),
            blood=np.zeros(5 * number, np.float32),
            granular=np.zeros(5 * number, bool),
            sharpness=np.full(number, np.nan, np.float32),
            pixels=np.zeros((number, SAMPLE * SAMPLE, 3), np.uint8),
            judged=np.zeros(number, bool),
        )


def measure(reader: SlideReader, mpp: tuple[float, float], grid: Grid, rows: np.ndarray, glass: np.ndarray) -> Detail:
    """Measure the 10x tiles of `rows` and their children; the others stay unjudged.

    A slide scanned coarser than 2 µm per pixel is not judged at all.

    Parameters
    ----------
    rows
        int [n], of `grid.parents`.
    glass
        Colour of the slide's glass, float32 [3].
    """
    number = len(grid.parents)
    detail = Detail.of(number)
    if max(mpp) > MPP or not len(rows):
        return detail
    side = _BLOCK * MPP / np.array(mpp)
    _, member = np.unique((grid.parents[rows, :2] // side).astype(np.int64), axis=0, return_inverse=True)
    member = member.ravel()
    for place in np.split(np.argsort(member, kind="stable"), np.flatnonzero(np.diff(np.sort(member))) + 1):
        part = rows[place]
        children = (number + 4 * part[:, None] + np.arange(4)).ravel()
        _measure_block(reader, mpp, grid.take(part), glass, detail, part, children)
    return detail


def sharpness(density: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Laplacian energy over variance, and standard deviation, of the tissue in boxes of a density image.

    Glass and the edge of the tissue do not count: the step between them is the largest variance of a tile and has
    little of fine structure, so a sharp tile that is half glass would look like a blurred one.

    Parameters
    ----------
    density
        float32 [H, W], at 2 µm per pixel.
    edges
        int [N, 4]: left, top, right, bottom in its pixels.

    Returns
    -------
    float64 [N] each; a deviation of 0 where there is too little tissue to judge.
    """
    within = cv2.erode((cv2.blur(density, (5, 5)) > TISSUE).astype(np.uint8), np.ones((5, 5), np.uint8))
    within = within.astype(np.float32)
    share = _mean(within, edges)
    known = np.maximum(share, MIN_TISSUE)
    inside = density * within
    variance = np.maximum(_mean(inside * density, edges) / known - (_mean(inside, edges) / known) ** 2, 1e-12)
    laplacian = cv2.Laplacian(density, cv2.CV_32F) * within
    ratio = _mean(laplacian * laplacian, edges) / known / variance
    return ratio, np.where(share < MIN_TISSUE, 0, np.sqrt(variance))


def is_blurred(ratio: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Whether boxes are out of focus, by what `sharpness` gives. bool [N]."""
    mild = (ratio < BLUR) & (contrast > BLUR_CONTRAST)
    return mild | ((ratio < STRONG_BLUR) & (contrast > STRONG_BLUR_CONTRAST))


def _measure_block(reader, mpp, part: Grid, glass, detail: Detail, parents, children) -> None:
    boxes = np.concatenate([part.parents, part.children])
    x0, y0, x1, y1 = _on_whole_pixels(reader, mpp, boxes)
    out = max(1, round((x1 - x0) * mpp[0] / MPP)), max(1, round((y1 - y0) * mpp[1] / MPP))
    rgb = reader.read_region(int(x0), int(y0), int(x1 - x0), int(y1 - y0), *out)
    scale = np.array(out) / np.array([x1 - x0, y1 - y0])
    low = np.floor((boxes[:, :2] - [x0, y0]) * scale).astype(np.int64)
    high = np.maximum(np.rint((boxes[:, :2] + boxes[:, 2:] - [x0, y0]) * scale).astype(np.int64), low + 1)
    edges = np.concatenate([low, np.minimum(high, out)], axis=1)
    both = np.concatenate([parents, children])

    density = colour.optical_density(rgb, glass)
    ratio, contrast = sharpness(density @ np.full(3, 1 / 3, np.float32), edges)
    detail.blur[both] = is_blurred(ratio, contrast)
    blood = red_dye(density)
    detail.blood[both] = _mean(blood.astype(np.float32), edges) if blood.any() else 0
    detail.granular[both] = _grain(density[..., 2], blood, edges) > GRANULAR
    number = len(parents)
    detail.sharpness[parents] = np.where(contrast > BLUR_CONTRAST, ratio, np.nan)[:number]
    detail.judged[parents] = True
    step = (np.arange(SAMPLE) + 0.5) / SAMPLE
    left, top, right, bottom = edges[:number].T
    x = (left[:, None] + step * (right - left)[:, None]).astype(np.int64)
    y = (top[:, None] + step * (bottom - top)[:, None]).astype(np.int64)
    detail.pixels[parents] = rgb[y[:, :, None], x[:, None, :]].reshape(number, -1, 3)


def _on_whole_pixels(reader: SlideReader, mpp: tuple[float, float], boxes: np.ndarray) -> tuple[int, int, int, int]:
    """Edges around boxes, on whole pixels of the level that is read: resampling is several times as fast there."""
    low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    downsample = reader.level_for(MPP / mpp[0], MPP / mpp[1]).downsample
    if downsample == round(downsample):
        step = round(downsample)
        low, high = low // step * step, np.minimum(-(-high // step) * step, np.maximum(reader.dimensions, high))
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _grain(blue: np.ndarray, blood: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean coefficient of variation of the blue density within the solid part of `blood`; 1 where there is none."""
    if not blood.any():
        return np.ones(len(edges))
    solid = cv2.erode(blood.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    mean = cv2.blur(blue, (5, 5))
    spread = np.sqrt(np.maximum(cv2.blur(blue * blue, (5, 5)) - mean * mean, 0)) / np.maximum(mean, 0.05)
    share = _mean(solid, edges)
    return np.where(share > 0.01, _mean(spread * solid, edges) / np.maximum(share, 1e-6), 1.0)


def _mean(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of an image over boxes, float64 [N]."""
    left, top, right, bottom = edges.T
    total = cv2.integral(values, sdepth=cv2.CV_64F)
    area = (right - left) * (bottom - top)
    return (total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]) / area
