"""What every slide reader offers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from histill.slides.readers.levels import Level


class SlideReader(Protocol):
    """Pixels of a slide; for one thread, others read with its clones.

    Attributes
    ----------
    name
        The reader, a key of `READERS`.
    vendor
        Format as the reader calls it.
    properties
        The reader's properties, all as text.
    dimensions
        (width, height) of level 0 in pixels.
    levels
        Finest first.
    icc_profile
        Name of the slide's colour profile, or None; known whether it is applied or not.
    refusals
        What readers tried before said of the file.
    notes
        What the user should know of how this one reads it.
    """

    name: str
    path: Path
    vendor: str
    refusals: list[str]
    notes: list[str]
    properties: dict[str, str]
    dimensions: tuple[int, int]
    levels: list[Level]
    icc_profile: str | None

    def read_region(
        self,
        x: int,
        y: int,
        width: int,
        height: int,
        out_width: int,
        out_height: int,
        out: np.ndarray | None = None,
    ) -> np.ndarray: ...

    def expect(self, boxes: np.ndarray, out_width: int, out_height: int) -> None: ...

    def clone(self) -> SlideReader: ...

    def level_for(self, x: float, y: float) -> Level: ...

    def close(self) -> None: ...

    def __enter__(self) -> SlideReader: ...

    def __exit__(self, *_: object) -> None: ...
