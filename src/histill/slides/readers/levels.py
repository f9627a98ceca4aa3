"""Levels of a pyramid: their true scale, and which one serves a request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

LEVEL_TOLERANCE = 1.001  # tile edges are whole pixels: a tile of 448 asks for 3.998 where 4 is meant


class Level(NamedTuple):
    """One level of the pyramid; `downsample` is relative to level 0."""

    width: int
    height: int
    downsample: float


def scales(
    sizes: Sequence[tuple[int, int]], stated: Sequence[float] | None = None
) -> tuple[list[Level], list[tuple[float, float]]]:
    """Levels, and level-0 pixels per pixel of each level in x and y.

    Sizes of levels are rounded to whole pixels, so their ratio to level 0 is not the factor they were made with: 37,500
    of 150,001 pixels is 4, not 4.00003, which would be a whole pixel off at the far edge. A size within one pixel of a
    whole factor on both axes has that factor; otherwise each axis keeps its own ratio.

    Parameters
    ----------
    sizes
        (width, height) of each level, level 0 first.
    stated
        Downsample of each level as the library gives it. One that is not the mean ratio of the sizes is the format's
        own word and is kept.
    """
    full = sizes[0]
    levels, factors = [], []
    for index, (width, height) in enumerate(sizes):
        ratio = full[0] / width, full[1] / height
        mean = sum(ratio) / 2
        whole = _whole_factor((width, height), full)
        if stated is not None and abs(stated[index] - mean) > 1e-4 * mean:
            factor = float(stated[index]), float(stated[index])
        elif whole is not None:
            factor = float(whole), float(whole)
        else:
            factor = ratio
        factors.append(factor)
        levels.append(Level(width, height, factor[0] if factor[0] == factor[1] else sum(factor) / 2))
    return levels, factors


def _whole_factor(size: tuple[int, int], full: tuple[int, int]) -> int | None:
    """The factor that makes `size` of `full` to within a pixel; a power of two where one does, as pyramids have."""
    mean = (full[0] / size[0] + full[1] / size[1]) / 2
    for factor in (2 ** round(math.log2(max(mean, 1))), max(1, round(mean))):
        if all(abs(side - long / factor) <= 1 for side, long in zip(size, full, strict=True)):
            return factor
    return None


def level_for(factors: Sequence[tuple[float, float]], x: float, y: float) -> int:
    """Index of the coarsest level that is as fine as `x` and `y` level-0 pixels per pixel ask; else the finest."""
    fine = [index for index, (dx, dy) in enumerate(factors) if dx <= x * LEVEL_TOLERANCE and dy <= y * LEVEL_TOLERANCE]
    return max(fine, key=lambda index: factors[index][0], default=0)
