"""A region that is asked for, in pixels of the level that serves it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from histill.slides.readers.resample import Box


class Window(NamedTuple):
    """Whole pixels of a level, right and bottom excluded."""

    left: int
    top: int
    right: int
    bottom: int


class Axis:
    """One axis of a request: which pixels of the answer touch the slide, and what they span in level-0 pixels."""

    __slots__ = ("_length", "count", "first", "high", "inside", "low", "scale")

    def __init__(self, start: int, scale: float, count: int, length: int):
        self.scale = scale
        self.first = max(0, math.floor(-start / scale))
        self.count = min(count, math.ceil((length - start) / scale)) - self.first
        self.low = start + self.first * scale
        self.high = start + (self.first + self.count) * scale
        self._length = length
        self.inside = self.count == count and self.low >= 0 and self.high <= length + 1e-6

    def share(self) -> np.ndarray:
        """Share of each pixel that is inside the slide, float32 [count]."""
        edges = np.clip(np.linspace(self.low, self.high, self.count + 1), 0, self._length)
        return (np.diff(edges) / self.scale).clip(0, 1).astype(np.float32)


class Request(NamedTuple):
    """The part of a region that touches the slide.

    Attributes
    ----------
    columns, rows
        Its axes.
    index
        The level.
    box
        Its edges on that level.
    window
        The level's pixels that resampling looks at.
    """

    columns: Axis
    rows: Axis
    index: int
    box: Box
    window: Window

    @property
    def factor(self) -> int:
        """How many of the window's pixels on a side are one of the answer, where that is a whole number; else 0."""
        left, top, right, bottom = self.window
        factor = (right - left) // self.columns.count
        if (right - left, bottom - top) != (factor * self.columns.count, factor * self.rows.count):
            return 0
        whole = all(abs(edge - pixel) < 1e-6 for edge, pixel in zip(self.box, self.window, strict=True))
        return factor if whole else 0


def span(low: float, high: float, more: int, length: int) -> tuple[int, int]:
    """Whole pixels that cover a span with a margin, inside a level, at least one."""
    left = min(max(math.floor(low + 1e-6) - more, 0), length - 1)
    return left, max(min(math.ceil(high - 1e-6) + more, length), left + 1)
