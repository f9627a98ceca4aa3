"""Whether outlines drawn by a person lie where the stained tissue is, or look as if drawn in another unit."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry import Polygon

from histill.slides import regions
from histill.slides.readers import SlideReader

OFF, ON = 0.3, 0.6  # share of drawn area on stained tissue: of misplaced outlines at most, of rightly scaled at least
SMALL = 0.001  # of the slide


def doubts(
    polygons: list[Polygon], stained: np.ndarray, reader: SlideReader, mpp: tuple[float, float]
) -> tuple[str, ...]:
    """What is odd about drawn outlines, one sentence each; they are used as they are all the same.

    Parameters
    ----------
    polygons
        In level-0 pixels, inside the slide.
    stained
        Where stained tissue is on the overview, bool [H, W].
    mpp
        (x, y) of level 0.
    """
    if not polygons:
        return ()
    found = []
    width, height = reader.dimensions
    share = sum(polygon.area for polygon in polygons) / (width * height)
    if share < SMALL:
        found.append(f"tissue.geojson: its outlines cover {share:.2%} of the slide")
    on = _on(polygons, stained, reader.dimensions)
    if stained.any() and on < OFF:
        found.append(
            f"tissue.geojson: {on:.0%} of its area is on stained tissue{_unit(polygons, stained, reader, mpp)}"
        )
    return tuple(found)


def _unit(polygons: list[Polygon], stained: np.ndarray, reader: SlideReader, mpp: tuple[float, float]) -> str:
    """A unit in which the outlines would fit, as the end of a sentence."""
    units = [("µm", 1 / mpp[0], 1 / mpp[1])]
    units += [
        (f"pixels of level {number}", level.downsample, level.downsample)
        for number, level in enumerate(reader.levels[1:], 1)
    ]
    shares = {}
    for unit, x, y in units:
        scaled = [shapely.transform(polygon, lambda points, x=x, y=y: points * [x, y]) for polygon in polygons]
        right, bottom = shapely.union_all(scaled).bounds[2:]
        if right <= reader.dimensions[0] * 1.02 and bottom <= reader.dimensions[1] * 1.02:
            shares[unit] = _on(scaled, stained, reader.dimensions)
    best = max(shares, key=shares.get, default=None)
    if best is None or shares[best] < ON:
        return ": is it drawn for this slide?"
    return f", but {shares[best]:.0%} if its coordinates are {best}; they have to be pixels of level 0"


def _on(polygons: list[Polygon], stained: np.ndarray, dimensions: tuple[int, int]) -> float:
    drawn = regions.to_mask(polygons, dimensions, stained.shape)
    return float(drawn[stained].sum(dtype=np.int64) / max(1, drawn.sum(dtype=np.int64)))
