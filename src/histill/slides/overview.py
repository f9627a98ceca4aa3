"""The slide's overview: read from the slide in bands, kept as JPEG, read back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from histill.errors import SlideError
from histill.provenance import atomic_file
from histill.slides.readers import SlideReader

_BLOCK = 4096, 2048  # pixels (x, y) of a level held at once: whole tiles of any usual size, so few are decoded twice
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


def read_overview(reader: SlideReader, mpp: tuple[float, float], target: float) -> np.ndarray:
    """The whole slide at about `target` µm per pixel.

    Read in blocks, so that a slide without coarse levels needs no more memory than another. Blocks begin and end on
    whole pixels of the level that is read, which cuts the time of resampling to a fraction; a pixel of the overview is
    off by at most one pixel of that level.

    Parameters
    ----------
    mpp
        (x, y) of level 0.

    Returns
    -------
    uint8 RGB array [height * mpp_y / target, width * mpp_x / target, 3], rounded, at least one pixel a side.
    """
    full = reader.dimensions
    size = [max(1, round(side * value / target)) for side, value in zip(full, mpp, strict=True)]
    downsample = reader.level_for(full[0] / size[0], full[1] / size[1]).downsample
    columns, rows = (list(_spans(size[axis], full[axis], _BLOCK[axis], downsample)) for axis in (0, 1))
    picture = np.empty((size[1], size[0], 3), np.uint8)
    for top, bottom, y0, y1 in rows:
        for left, right, x0, x1 in columns:
            block = reader.read_region(x0, y0, x1 - x0, y1 - y0, right - left, bottom - top)
            picture[top:bottom, left:right] = block
    return picture


def _spans(pixels: int, full: int, block: int, downsample: float) -> Iterator[tuple[int, int, int, int]]:
    """Blocks along one axis: from and to in overview pixels, from and to in level-0 pixels."""
    step = max(1, int(block * downsample * pixels / full))
    edges = [*range(0, pixels, step), pixels]
    places = [round(whole_pixels(edge * full / pixels, full, downsample)) for edge in edges]
    for (start, end), (low, high) in zip(pairwise(edges), pairwise(places), strict=True):
        yield start, end, low, max(high, low + 1)


def whole_pixels(place: float, full: int, downsample: float) -> float:
    """The edge between two pixels of a level that is nearest to a place, both in level-0 pixels of one axis.

    Parameters
    ----------
    full
        Pixels of level 0 along the axis. A level has `full / downsample` pixels, rounded down.
    downsample
        Of the level. Where it is no whole number no edge is a whole pixel of level 0, and the place is kept.
    """
    if downsample != round(downsample) or full < downsample:
        return place
    return min(round(place / downsample), full // downsample) * downsample


def write_overview(path: Path, rgb: np.ndarray) -> None:
    """Write the overview as JPEG without chroma subsampling: quality flags are read from its colours."""
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _JPEG)
    if not done:
        raise SlideError(f"{path}: the overview of {rgb.shape[1]} × {rgb.shape[0]} pixels cannot be written as JPEG")
    with atomic_file(path) as part:
        part.write_bytes(encoded.tobytes())


def read_picture(path: Path) -> np.ndarray:
    """The overview as uint8 RGB [H, W, 3]."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SlideError(f"{path}: is missing or no picture", mend="run: snakemake -R tissue_batch")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
